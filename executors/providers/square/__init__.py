"""Square, as data in provider.yaml."""
