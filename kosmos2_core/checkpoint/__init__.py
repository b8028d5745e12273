"""Checkpoints: finding the files, loading and checking them."""
