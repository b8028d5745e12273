"""An iterator that is waited for with a time limit."""

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

_DEPTH = 4
_NAME = "feed"


@dataclass(frozen=True, slots=True)
class _Ended:
    error: BaseException | None


class Feed(Generic[T]):
    """Runs `items` in a thread of its own.

    A Ray Data iterator blocks for as long as nothing comes, and some of its faults are that
    nothing ever comes; the caller has to be able to look up meanwhile.
    """

    def __init__(self, items: Callable[[], Iterator[T]]) -> None:
        self._items = items
        self._queue: queue.Queue[T | _Ended] = queue.Queue(_DEPTH)
        self._stopped = threading.Event()
        threading.Thread(target=self._run, name=_NAME, daemon=True).start()

    def ticks(self, every_s: float) -> Iterator[T | None]:
        """Each item as it comes, None whenever `every_s` passed without one.

        Raises what `items` raised.
        """
        while True:
            try:
                item = self._queue.get(timeout=every_s)
            except queue.Empty:
                yield None
                continue
            if isinstance(item, _Ended):
                if item.error is not None:
                    raise item.error
                return
            yield item

    @property
    def waiting(self) -> int:
        """Items that are there and not taken."""
        return self._queue.qsize()

    def stop(self) -> None:
        """Let go of the iterator at its next item, if it ever comes."""
        self._stopped.set()

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            for item in self._items():
                if not self._put(item):
                    return
        # A boundary: whatever ends the iterator is raised again in the caller's thread.
        except BaseException as raised:  # noqa: BLE001
            error = raised
        self._put(_Ended(error))

    def _put(self, item: T | _Ended) -> bool:
        """False once stopped, so that a full queue that nobody reads holds no thread."""
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=1)
            except queue.Full:
                continue
            return True
        return False


def any_left() -> bool:
    """Whether an iterator is still waited for, which a process that exits would pull the floor from
    under."""
    return any(thread.name == _NAME for thread in threading.enumerate())
