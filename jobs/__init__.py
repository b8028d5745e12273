"""What people run: the `kosmos2` command."""
