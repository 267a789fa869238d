"""One folder a vendor; read as data, never imported by name."""
