"""Results in order, with the next calls already under way."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def in_order(
    pool: ThreadPoolExecutor, calls: Iterable[Callable[[], T]], *, ahead: int
) -> Iterator[T]:
    """The results in the order of the calls; `ahead` of them are under way or waiting."""
    waiting: deque[Future[T]] = deque()
    for call in calls:
        waiting.append(pool.submit(call))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
