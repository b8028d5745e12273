"""Readers of input files: the bytes of a file become samples. They do not depend on shards."""
