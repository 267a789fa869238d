"""The executors' shell: consumer, lanes, driver, limiter, ledger."""
