"""Names of jobs, by output and partition."""

import hashlib

from pipeline.spec.partition import WHOLE, Partition
from pipeline.storage.objects import locate


def job_name(output: str, part: Partition = WHOLE) -> str:
    """Return `kosmos2-<hash>`: the same on every machine, for every way to write the output.

    A job on one of several partitions gets the partition as a suffix.
    """
    uri = locate(output).uri.rstrip("/")
    name = f"kosmos2-{hashlib.sha256(uri.encode()).hexdigest()[:12]}"
    return name if part == WHOLE else f"{name}-{part.index}-of-{part.of}"
