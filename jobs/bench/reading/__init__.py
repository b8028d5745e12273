"""The benchmark of a reader."""
