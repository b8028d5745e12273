"""Inputs -> frozen shards."""
