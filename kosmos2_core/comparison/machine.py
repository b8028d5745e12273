"""The machine on which something is measured: its processor, its GPU, the versions."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")


def machine() -> str:
    """Return architecture and system, such as "x86_64, Linux"."""
    return f"{platform.machine()}, {platform.system()}"


def processor(listing: Path = _CPU_INFO) -> str:
    """Return the name of the processor; where Linux does not list it, what Python calls it."""
    if listing.exists():
        for line in listing.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def versions(*packages: str) -> dict[str, str]:
    """Return the version of each installed package; "none" for one that is not."""
    return {name: _version(name) for name in packages}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Let torch compute in the calling thread only."""
    import torch  # most benchmarks go without it, and measure their memory

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
