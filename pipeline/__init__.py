"""A job over many shards, on Ray Data: plan, read, annotate, commit, resume."""
