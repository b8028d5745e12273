"""Isolation: one sample at a time in a process, to find a sample that kills its process."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from pipeline.errors import WorkerDied

_T = TypeVar("_T")

# From this attempt at a task on, counted from 0, samples are processed one at a time. The first
# death may be chance or a failure of the node. After the second, each image is decoded in a child
# process, so that only its own sample is lost.
ISOLATED_ATTEMPT = 2


class Marks(Protocol):
    """Names that outlive the process that added them."""

    def has(self, name: str) -> bool: ...

    def add(self, name: str) -> None: ...

    def remove(self, name: str) -> None: ...


class Room:
    """A lock held by any number of threads at once, or by one alone, which has priority."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._waiting = 0  # threads that hold the lock alone or wait for that

    @contextmanager
    def shared(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting)
            self._inside += 1
        try:
            yield
        finally:
            self._leave()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._waiting += 1
            self._changed.wait_for(lambda: not self._inside)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._waiting -= 1
            self._leave()

    def _leave(self) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()


def alone_with(room: Room, marks: Marks, name: str, work: Callable[[], _T]) -> _T | WorkerDied:
    """Do `work` while nothing else runs, so that a death of the process is due to it.

    Returns WorkerDied if an earlier process died of it. The mark then stays for later processes. An
    exception is no death.
    """
    with room.alone():
        if marks.has(name):
            return WorkerDied(
                f"{name}: the process died while it processed only this sample; run "
                "`kosmos2 retry --samples --error-type worker_died`, or remove the image"
            )
        marks.add(name)
        try:
            done = work()
        except Exception:
            marks.remove(name)
            raise
        marks.remove(name)
        return done
