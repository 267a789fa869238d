"""Height, as data in provider.yaml."""
