"""A Ray of this machine for a benchmark, which looks at its processes."""

import os

from pipeline.cluster import connect
from pipeline.errors import SpecError


def connect_own(num_cpus: int | None = None) -> None:
    """`num_cpus` are what Ray counts with, however many there are.

    Raises SpecError on a cluster, whose processes cannot be looked at from here.
    """
    if "RAY_ADDRESS" in os.environ:
        raise SpecError(
            "this benchmark runs on a Ray of its own, on this machine: unset RAY_ADDRESS"
        )
    connect(num_cpus)
