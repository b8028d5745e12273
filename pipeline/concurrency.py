"""Helpers for threads: ordered concurrent calls, a shared counter, an iterator with a timeout."""

import atexit
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

_T = TypeVar("_T")

_DEPTH = 4
_TABLE_S = 60.0  # longer than a table usually takes
_waiting: list[threading.Thread] = []  # threads of all timed iterators of this process


def in_order(
    pool: ThreadPoolExecutor, calls: Iterable[Callable[[], _T]], *, ahead: int
) -> Iterator[_T]:
    """Yield the results in the order of the calls, with up to `ahead` calls in flight."""
    waiting: deque[Future[_T]] = deque()
    for call in calls:
        waiting.append(pool.submit(call))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


class SharedCounter:
    """A number that several threads add to and one thread takes away to report."""

    def __init__(self) -> None:
        self._sum = 0.0
        self._taken = 0.0
        self._lock = threading.Lock()

    def add(self, amount: float = 1.0) -> None:
        with self._lock:
            self._sum += amount

    def take(self) -> float:
        """Return what was added since the last call."""
        with self._lock:
            taken, self._sum = self._sum, 0.0
            self._taken += taken
            return taken

    @property
    def total(self) -> float:
        """The sum of all amounts ever added, including those taken away."""
        with self._lock:
            return self._taken + self._sum


@dataclass(frozen=True, slots=True)
class _Ended:
    error: BaseException | None


class TimedIterator(Generic[_T]):
    """Iterate over `items` in a separate thread.

    A Ray Data iterator blocks while nothing arrives, and after some failures nothing ever arrives.
    The caller must be able to check other things meanwhile.
    """

    def __init__(self, items: Callable[[], Iterator[_T]]) -> None:
        self._items = items
        self._queue: queue.Queue[_T | _Ended] = queue.Queue(_DEPTH)
        self._stopped = threading.Event()
        if not _waiting:
            # After Ray's own farewell was registered, so before it.
            atexit.register(wait_until_none_waits)
        thread = threading.Thread(target=self._run, name="timed iterator", daemon=True)
        _waiting.append(thread)
        thread.start()

    def ticks(self, every_s: float) -> Iterator[_T | None]:
        """Yield each item as it arrives, and None whenever `every_s` seconds pass without one.

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
        """Number of items that have arrived and were not taken."""
        return self._queue.qsize()

    def stop(self) -> None:
        """Stop the thread at its next item."""
        self._stopped.set()

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            for item in self._items():
                if not self._put(item):
                    return
        # This is a boundary: the caller's thread raises whatever ends the iterator.
        except BaseException as raised:  # noqa: BLE001
            error = raised
        self._put(_Ended(error))

    def _put(self, item: _T | _Ended) -> bool:
        """Put an item; return False once stopped, so that a full queue never blocks for good."""
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=1)
            except queue.Full:
                continue
            return True
        return False


def is_any_waiting() -> bool:
    """Return whether a timed iterator still waits for an item. A normal exit would then crash."""
    return any(thread.is_alive() for thread in _waiting)


def wait_until_none_waits() -> None:
    """Return when each timed iterator has ended that was stopped, or after a minute.

    If Ray is shut down while one waits for a table, Ray ends the process: exit code 1, and no word.
    """
    deadline = time.monotonic() + _TABLE_S
    for thread in _waiting:
        thread.join(max(deadline - time.monotonic(), 0))
