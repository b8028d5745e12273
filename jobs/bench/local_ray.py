"""A local Ray for benchmarks that inspect its processes."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

import ray

from pipeline.concurrency import wait_until_none_waits
from pipeline.errors import SpecError
from pipeline.execution.cluster import connect

_TABLE_S = 60.0  # longer than a table takes in any benchmark


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
            # A run that was ended early still waits for a table, and Ray would take this process
            # down with it: exit code 1, and no word.
            wait_until_none_waits(_TABLE_S)
            ray.shutdown()
