"""Jira Cloud, as data in provider.yaml."""
