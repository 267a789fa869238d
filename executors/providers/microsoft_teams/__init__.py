"""Microsoft Teams, as data in provider.yaml."""
