"""What is known of a provider from its folder: its page, its tier, whether it is whole."""
