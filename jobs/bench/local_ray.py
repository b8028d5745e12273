"""A Ray of this machine for a benchmark, which looks at its processes."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

import ray

from pipeline.errors import SpecError
from pipeline.execution.cluster import connect


@contextmanager
def own_ray(num_cpus: int | None = None) -> Iterator[None]:
    """`num_cpus` are what Ray counts with, however many there are.

    What Ray says of its tasks goes to the standard error; the standard output is for figures.

    Raises SpecError on a cluster, whose processes cannot be looked at from here.
    """
    if "RAY_ADDRESS" in os.environ:
        raise SpecError(
            "this benchmark runs on a Ray of its own, on this machine: unset RAY_ADDRESS"
        )
    with redirect_stdout(sys.stderr):
        connect(num_cpus)
        try:
            yield
        finally:
            ray.shutdown()
