"""PayPal, as data in provider.yaml."""
