"""What all benchmarks share: the machine, the versions, CPU time of one thread, the JSON file."""

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch


def machine() -> str:
    return f"{platform.machine()}, {platform.system()}"


def versions(*packages: str) -> dict[str, str]:
    return {name: version(name) for name in packages}


def cpu_s(work: Callable[[], object]) -> float:
    """CPU time of the whole process: what else runs on the machine hardly counts."""
    start = time.process_time()
    work()
    return time.process_time() - start


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """torch computes with the thread that calls it, wherever that runs."""
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


def write_json(figures: Any, path: Path) -> None:
    """`figures`: a dataclass."""
    path.write_text(json.dumps(asdict(figures), indent=2))
