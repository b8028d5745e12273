"""Papers of an export: its README, and `croissant.json`, with license, citation and creators."""
