"""A file -> samples, within limits. Knows no shard."""
