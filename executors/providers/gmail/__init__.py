"""Gmail, as data in provider.yaml."""
