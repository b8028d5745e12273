"""Options as flags and as a YAML file."""
