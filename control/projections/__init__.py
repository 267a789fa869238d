"""The read side: log records become Postgres rows, again and again the same."""
