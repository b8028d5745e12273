"""One module per export format, and what they have in common."""
