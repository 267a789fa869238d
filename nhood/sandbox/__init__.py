"""A server that plays the vendors from the same provider files."""
