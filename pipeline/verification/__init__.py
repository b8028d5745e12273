"""Verification: whether an output holds what it should, and fixes for what can be fixed."""
