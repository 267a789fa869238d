"""Slack, as data in provider.yaml."""
