"""Calls to a vendor's API as it is, with a customer's connection."""
