"""A run: plan, pending, passes, verdict."""
