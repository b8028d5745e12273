"""Options of the command line: flags, a job's YAML file, places on this machine."""
