"""Readers and models that cost nothing, around which everything else is a real job."""
