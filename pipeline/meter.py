"""What several threads count, and one takes away to report."""

import threading


class Meter:
    def __init__(self) -> None:
        self._sum = 0.0
        self._taken = 0.0
        self._lock = threading.Lock()

    def add(self, amount: float = 1.0) -> None:
        with self._lock:
            self._sum += amount

    def take(self) -> float:
        """What was added since the last time."""
        with self._lock:
            taken, self._sum = self._sum, 0.0
            self._taken += taken
            return taken

    @property
    def total(self) -> float:
        """All that was ever added, taken away or not."""
        with self._lock:
            return self._taken + self._sum
