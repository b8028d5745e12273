"""What is asked for: JobSpec; and what of it decides the content: Identity."""
