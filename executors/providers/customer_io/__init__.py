"""Customer.io, as data in provider.yaml."""
