"""Intercom, as data in provider.yaml."""
