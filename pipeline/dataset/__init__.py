"""The output and its books: plan, commits, ledger, leases."""
