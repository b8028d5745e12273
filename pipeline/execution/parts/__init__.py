"""The drivers of the parts of a run, each in a process that Ray starts."""
