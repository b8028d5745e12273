"""Commands that share a dataset with people: on the hub, and with those who judge it."""
