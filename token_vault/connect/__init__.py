"""The pages on which an end customer connects an account, by a link that works once."""
