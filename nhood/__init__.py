"""The command: starts, stops, shows and demonstrates the platform."""
