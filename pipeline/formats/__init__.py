"""Readers of input files: the bytes of a file -> samples. Nothing here knows shards."""
