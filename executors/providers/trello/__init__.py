"""Trello, as data in provider.yaml."""
