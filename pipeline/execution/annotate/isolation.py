"""One sample at a time in a process, so that one that kills it is known and costs itself alone."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from pipeline.errors import WorkerDied

_T = TypeVar("_T")

# From this attempt at a task on, counted from 0, one sample is done at a time: the first death may
# be chance, or the node's; after the second each image is decoded in a process that it may kill,
# so that it costs its sample alone.
ISOLATED_ATTEMPT = 2


class Marks(Protocol):
    """Names that outlive the process that added them."""

    def has(self, name: str) -> bool: ...

    def add(self, name: str) -> None: ...

    def remove(self, name: str) -> None: ...


class Room:
    """Any number of threads at once, or one alone; who wants to be alone goes first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._waiting = 0  # to be alone, or alone

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
    """Do `work` with nothing else in the room: if the process dies, it was this.

    WorkerDied if an earlier process died of it. The mark then stays, for the next one.
    """
    with room.alone():
        if marks.has(name):
            return WorkerDied("its process died with nothing else in hand, of it or by chance")
        marks.add(name)
        done = work()
        marks.remove(name)
        return done
