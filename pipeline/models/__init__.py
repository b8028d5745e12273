"""Model checkpoints on a node: fetched once for all its processes, and used offline afterwards."""
