"""The output and its records: plan, commits, ledger, leases."""
