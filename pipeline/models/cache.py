"""The node's cache: files and folders that one process makes and all others use.

What is made appears whole, by a rename. A lock lets one process make it while the others wait; the
system frees the lock of a process that dies.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, flock
from pathlib import Path
from uuid import uuid4

_FOLDER = "KOSMOS2_CACHE"
_PARTIAL = ".partial"


def cache_folder() -> Path:
    """Return the folder that KOSMOS2_CACHE names, else `kosmos2` in the user's cache."""
    if named := os.environ.get(_FOLDER):
        return Path(named)
    users = os.environ.get("XDG_CACHE_HOME")
    return (Path(users) if users else Path.home() / ".cache") / "kosmos2"


@contextmanager
def node_lock(path: Path) -> Iterator[None]:
    """Hold a lock between the processes of this node. Its file stays: removing it is a race."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("ab") as file:
        flock(file, LOCK_EX)
        yield


def made_once(path: Path, make: Callable[[Path], None]) -> Path:
    """Return `path`, a file or folder. If it is not there, call `make` with a temporary path."""
    if path.exists():
        return path
    with node_lock(path):
        if not path.exists():
            for left in path.parent.glob(f".{path.name}.*{_PARTIAL}"):
                _remove(left)  # a process died while it made this
            temporary = path.with_name(f".{path.name}.{uuid4().hex}{_PARTIAL}")
            try:
                make(temporary)
                temporary.rename(path)
            except BaseException:
                _remove(temporary)
                raise
    return path


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
