"""Where a checkpoint's files are, and loading them, with checks by behaviour."""
