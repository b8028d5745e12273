"""Planning: inputs become frozen shards."""
