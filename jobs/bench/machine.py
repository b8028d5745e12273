"""What all benchmarks share: the machine, the versions, CPU time of one thread."""

import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version

from rich.table import Table


def machine() -> str:
    return f"{platform.machine()}, {platform.system()}"


def versions(*packages: str) -> dict[str, str]:
    return {name: version(name) for name in packages}


def load_average() -> float:
    """Processes that want to run, on average over the last minute."""
    return os.getloadavg()[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchResult:
    """Figures, and what the machine was like when they were taken."""

    cpus: int | None = field(default_factory=os.cpu_count)
    load_before: float

    def page(self) -> Iterator[str | Table]:
        """For people to read."""
        yield self.conditions

    @property
    def conditions(self) -> str:
        return f"{self.cpus} CPUs, load {self.load_before:.1f} before the start"


def cpu_s(work: Callable[[], object]) -> float:
    """CPU time of the whole process: what else runs on the machine hardly counts."""
    start = time.process_time()
    work()
    return time.process_time() - start


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """torch computes with the thread that calls it, wherever that runs."""
    import torch  # most benchmarks go without it, and measure their memory

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def one_thread() -> Iterator[None]:
    """torch computes with one thread, on one core where the system can pin it."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_setaffinity") else None
    try:
        if cores:
            os.sched_setaffinity(0, {max(cores)})
        with one_torch_thread():
            yield
    finally:
        if cores:
            os.sched_setaffinity(0, cores)
