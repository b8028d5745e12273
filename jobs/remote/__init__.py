"""A job on a cluster's job server."""
