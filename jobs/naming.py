"""What a job is called: by its output, which no two jobs write to at once."""

import hashlib

from pipeline.storage.objects import locate

JOB_VARIABLE = "KOSMOS2_JOB"  # the name of a submitted attempt, in its log lines


def job_name(output: str) -> str:
    """`kosmos2-<hash>`: the same from every machine, whatever way an output is written."""
    uri = locate(output).uri.rstrip("/")
    return f"kosmos2-{hashlib.sha256(uri.encode()).hexdigest()[:12]}"
