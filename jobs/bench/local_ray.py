"""A local Ray for benchmarks that inspect its processes."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

import ray

from pipeline.concurrency import wait_until_none_waits
from pipeline.errors import SpecError
from pipeline.execution.cluster import connect


@contextmanager
def own_ray(num_cpus: int | None = None) -> Iterator[None]:
    """Start a local Ray that counts with `num_cpus`, however many there are.

    Ray's output goes to the standard error; the standard output is for figures.

    Raises SpecError if RAY_ADDRESS names a cluster: its processes cannot be inspected.
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
            wait_until_none_waits()  # a run that was ended early may do so
            ray.shutdown()
