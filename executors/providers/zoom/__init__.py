"""Zoom, as data in provider.yaml."""
