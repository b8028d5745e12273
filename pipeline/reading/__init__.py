"""Reading: a shard becomes samples, and samples become tables with pixels."""
