"""Braze, as data in provider.yaml."""
