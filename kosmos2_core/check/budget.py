"""A limit in time, shared among the blocks."""

import time
from collections.abc import Callable
from dataclasses import dataclass

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """When the check or a block should be done. Blocks look at it between two measurements."""

    at_s: float
    clock: Clock = time.monotonic

    @property
    def left_s(self) -> float:
        return max(self.at_s - self.clock(), 0.0)

    @property
    def is_over(self) -> bool:
        return self.left_s == 0.0

    def part(self, *, share: float, needs_s: float) -> "Deadline":
        """Return the end of a block that gets a share of what is left, and at least `needs_s`.

        A block that leaves time leaves it to those after it.
        """
        length_s = min(max(share * self.left_s, needs_s), self.left_s)
        return Deadline(at_s=self.clock() + length_s, clock=self.clock)
