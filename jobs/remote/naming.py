"""What a job is called: by its output and its part of it, which no two jobs do at once."""

import hashlib

from pipeline.spec.partition import WHOLE, Partition
from pipeline.storage.objects import locate


def job_name(output: str, part: Partition = WHOLE) -> str:
    """`kosmos2-<hash>`: the same from every machine, whatever way an output is written.

    Jobs that do a part each have a name each.
    """
    uri = locate(output).uri.rstrip("/")
    name = f"kosmos2-{hashlib.sha256(uri.encode()).hexdigest()[:12]}"
    return name if part == WHOLE else f"{name}-{part.index}-of-{part.of}"
