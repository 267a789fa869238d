"""The executors' shell: dispatch, driver, limits, ledger."""
