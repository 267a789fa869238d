"""Freshdesk, as data in provider.yaml."""
