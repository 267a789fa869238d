"""Amazon SES, as data in provider.yaml."""
