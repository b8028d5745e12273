"""All that runs on Ray."""
