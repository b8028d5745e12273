"""One module per command: its flags, its help, its output."""
