"""The most frequent of very many values, in bounded memory."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

CAPACITY = 50_000  # values; some 10 MB


@dataclass(slots=True, kw_only=True)
class Frequent:
    """Counts all values up to a limit, then forgets rare ones (lossy counting).

    A count is never too high, and too low by at most `missed`.
    """

    capacity: int = CAPACITY
    counts: Counter[str] = field(default_factory=Counter)
    missed: int = 0

    def add(self, values: Iterable[str]) -> None:
        self.counts.update(values)
        self._forget()

    def merge(self, other: "Frequent") -> None:
        self.counts.update(other.counts)
        self.missed += other.missed
        self._forget()

    def top(self, count: int) -> list[tuple[str, int]]:
        """Return the most frequent values first; ties are in alphabetical order."""
        return sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))[:count]

    def _forget(self) -> None:
        if len(self.counts) <= 2 * self.capacity:
            return
        ranked = self.counts.most_common()
        self.missed += ranked[self.capacity][1]
        self.counts = Counter(dict(ranked[: self.capacity]))
