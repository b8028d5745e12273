"""Means of a benchmark: load of the machine, CPU time, one thread."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from jobs.terminal import DataTable
from kosmos2_core.comparison.machine import one_torch_thread, processor

_T = TypeVar("_T")


def load_average() -> float:
    """Return the load average of the last minute."""
    return os.getloadavg()[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchResult:
    """Figures, with the conditions under which they were taken."""

    processor: str = field(default_factory=processor)
    cpus: int | None = field(default_factory=os.cpu_count)
    load_before: float

    def page(self) -> Iterator[str | DataTable]:
        """Yield the figures as text and tables."""
        yield self.conditions

    @property
    def conditions(self) -> str:
        return f"{self.processor}, {self.cpus} CPUs, load {self.load_before:.1f} before the start"


def cpu_s(work: Callable[[], object]) -> float:
    """Return the CPU time that `work` takes in this process. Other processes hardly affect it."""
    return timed(work)[1]


def timed(work: Callable[[], _T]) -> tuple[_T, float]:
    """Return what `work` returns, and its `cpu_s`."""
    start = time.process_time()
    result = work()
    return result, time.process_time() - start


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute in one thread, pinned to one core where the system can do that."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_setaffinity") else None
    try:
        if cores:
            os.sched_setaffinity(0, {max(cores)})
        with one_torch_thread():
            yield
    finally:
        if cores:
            os.sched_setaffinity(0, cores)
