"""A shard -> samples -> tables with pixels."""
