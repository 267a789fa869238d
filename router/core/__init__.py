"""Pure parts of the router: matching and advancing; no I/O, no clock."""
