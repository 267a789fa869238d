"""Pure parts of the executors: requests, outcomes, pages."""
