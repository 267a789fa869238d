"""Tableau, as data in provider.yaml."""
