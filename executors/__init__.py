"""Commands in, vendor calls out, results back."""
