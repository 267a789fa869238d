"""Pipedrive, as data in provider.yaml."""
