"""How many bytes may still be taken here."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

_PROC = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")


def available_bytes(device: torch.device) -> int:
    """Of the GPU's memory, or of the machine's within the limits of our control groups."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free
    machine: int = psutil.virtual_memory().available
    return min([machine, *cgroup_rooms()])


def cgroup_rooms(listing: Path = _PROC, root: Path = _CGROUPS) -> Iterator[int]:
    """What is left under the limit of each of our groups, up to the root: containers have one.

    Both layouts of Linux, versions 2 and 1; nothing on other systems.
    """
    if not listing.exists():
        return
    for line in listing.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            top = root / controllers
            group = top / path.lstrip("/")
            for directory in [group, *group.parents][: len(group.parts) - len(top.parts) + 1]:
                yield from _room(directory)


def _room(group: Path) -> Iterator[int]:
    for limit, usage, cache in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        if (group / limit).exists() and (said := (group / limit).read_text().strip()) != "max":
            used = int((group / usage).read_text())
            yield max(int(said) - used + _stat(group, cache), 0)


def _stat(group: Path, name: str) -> int:
    """Cached files count as used, but give way."""
    lines = (group / "memory.stat").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.split()[0] == name), 0)
