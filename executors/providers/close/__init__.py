"""Close, as data in provider.yaml."""
