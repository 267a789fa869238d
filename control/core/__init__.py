"""Pure parts of control: access, quotas, workflow checks."""
