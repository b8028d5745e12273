"""Jobs on a Ray cluster's job server."""
