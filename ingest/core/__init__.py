"""Pure parts of ingest: signatures, paths, and how a request becomes an event."""
