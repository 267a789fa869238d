"""Pure parts of the vault: envelopes and grants."""
