"""The only place that sees a credential in clear."""
