"""Examination of a setup: what a job needs, tried one by one before it starts."""
