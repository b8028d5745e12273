"""What a job is called: by its output and its part of it, which no two jobs write to at once."""

import hashlib

from pipeline.partition import WHOLE, Partition
from pipeline.storage.objects import locate

JOB_VARIABLE = "KOSMOS2_JOB"  # the name of a submitted attempt, in its log lines


def job_name(output: str, partition: Partition = WHOLE) -> str:
    """`kosmos2-<hash>`: the same from every machine, whatever way an output is written.

    Of a part, `kosmos2-<hash>-1-of-4`.
    """
    uri = locate(output).uri.rstrip("/")
    name = f"kosmos2-{hashlib.sha256(uri.encode()).hexdigest()[:12]}"
    return name if partition == WHOLE else f"{name}-{partition.index}-of-{partition.of}"
