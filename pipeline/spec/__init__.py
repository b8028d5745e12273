"""The specification of a job: JobSpec, and Identity, the part of it that decides the content."""
