"""Selection of a few evenly spaced items."""

from collections.abc import Sequence
from typing import TypeVar

_T = TypeVar("_T")


def evenly_spaced(items: Sequence[_T], count: int) -> list[_T]:
    """Return at most `count` items, from the first to the last, in order."""
    if len(items) <= count:
        return list(items)
    step = (len(items) - 1) / max(count - 1, 1)
    return [items[round(i * step)] for i in range(count)]
