"""Google Sheets, as data in provider.yaml."""
