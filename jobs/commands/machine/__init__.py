"""Commands that check this machine."""
