"""This machine: versions, disk, shared memory, a browser."""

import os
import platform
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import Requirement

from pipeline.doctor.setup import JobSetup
from pipeline.errors import SpecError
from pipeline.execution.ray_version import check_own_version
from pipeline.models.cache import cache_folder
from pipeline.version import our_requirements, our_version

_SHOWN = ("ray", "torch", "transformers", "pyarrow")
_LEAST_FREE = 0.05  # Ray stores nothing more on a disk that is 95 % full
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - nothing is written
_LEAST_SHARED_BYTES = 1 << 29  # of this, 30 blocks of 16 MiB can be in flight
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "firefox", "safari")


def supported_versions(setup: JobSetup) -> str:
    """Compare the versions of all packages with those that were tried. Raises SpecError."""
    check_own_version()
    wrong = [said for each in our_requirements() if (said := _unlike(Requirement(each)))]
    if wrong:
        raise SpecError(f"{'; '.join(wrong)}: install them, as with pip install -c constraints.txt")
    shown = ", ".join(f"{name} {version(name)}" for name in _SHOWN)
    return f"kosmos2 {our_version()}, Python {platform.python_version()}, {shown}"


def _unlike(requirement: Requirement) -> str | None:
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
        return None
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return f"{requirement.name} is not installed"
    if requirement.specifier.contains(found, prereleases=True):
        return None
    return f"{requirement.name} {found} is installed, but {requirement.specifier} is needed"


def disk(setup: JobSetup) -> str:
    """Check the free space of Ray's folder and of the cache of models. Raises SpecError."""
    folders = {
        "RAY_TMPDIR": Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()),
        "KOSMOS2_CACHE": cache_folder(),
    }
    found = []
    for variable, folder in folders.items():
        there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
        usage = shutil.disk_usage(there)
        if usage.free < _LEAST_FREE * usage.total:
            raise SpecError(
                f"the disk of {folder} is full: {_gib(usage.free)} of {_gib(usage.total)} are "
                f"free; free space there, or set {variable} to another folder"
            )
        found.append(f"{_gib(usage.free)} free for {folder}")
    return ", ".join(found)


def shared_memory(setup: JobSetup) -> str | None:
    """Check the size of the shared memory, in which Ray stores tables. Raises SpecError."""
    if not _SHARED_MEMORY.is_dir():
        return None
    total = shutil.disk_usage(_SHARED_MEMORY).total
    if total < _LEAST_SHARED_BYTES:
        raise SpecError(
            f"{_SHARED_MEMORY} has {_gib(total)}, so Ray would store tables on a disk; start the "
            "container with more, as in docker run --shm-size=4g"
        )
    return f"{_gib(total)} in {_SHARED_MEMORY}"


def browser(setup: JobSetup) -> str | None:
    """Return the browser that would show a page of `view` or `report`."""
    names = (os.environ.get("CHROMIUM", ""), *_BROWSERS)
    return next((found for name in names if name and (found := shutil.which(name))), None)


def _gib(size_bytes: float) -> str:
    return f"{size_bytes / 2**30:.1f} GiB"
