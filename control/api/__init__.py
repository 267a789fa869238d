"""The control API's routes, one file a noun."""
