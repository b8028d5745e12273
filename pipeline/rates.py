"""How fast something goes now, beside how fast it went on average."""

import time
from collections import deque
from dataclasses import dataclass, field

WINDOW_S = 60.0  # "now": longer than a table of images takes on the slowest machine


@dataclass(slots=True)
class Rate:
    """Counts per second within the last WINDOW_S."""

    started: float = field(default_factory=time.monotonic)
    _counts: deque[tuple[float, float]] = field(default_factory=deque)

    def add(self, count: float) -> None:
        now = time.monotonic()
        self._counts.append((now, count))
        while self._counts[0][0] < now - WINDOW_S:
            self._counts.popleft()

    @property
    def per_s(self) -> float:
        """0 where nothing came for that long. May be asked by another thread than adds."""
        now = time.monotonic()
        span_s = min(now - self.started, WINDOW_S)
        counted = sum(count for at, count in tuple(self._counts) if at >= now - WINDOW_S)
        return counted / span_s if span_s > 0 else 0.0
