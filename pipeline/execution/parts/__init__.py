"""Processes that Ray starts beside a driver: those of the parts of a run, and short calls."""
