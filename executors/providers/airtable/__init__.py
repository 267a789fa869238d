"""Airtable, as data in provider.yaml."""
