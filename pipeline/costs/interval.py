"""Estimates from a sample, with 95 % intervals."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# Two-sided 95 % quantiles of Student's t for 1, 2, ... degrees of freedom.
_T95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)
_NORMAL95 = 1.96


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """An estimate. `low` to `high` is a 95 % interval, if the sample represents the rest."""

    value: float
    low: float
    high: float

    def times(self, factor: float) -> "Estimate":
        return Estimate(value=self.value * factor, low=self.low * factor, high=self.high * factor)

    def by(self, other: "Estimate") -> "Estimate":
        """Return the product of two independent estimates."""
        off = math.hypot(self._off, other._off)
        value = self.value * other.value
        return Estimate(value=value, low=value * max(1 - off, 0), high=value * (1 + off))

    @property
    def _off(self) -> float:
        return (self.high - self.value) / self.value if self.value else 0.0


def ratio(pairs: Sequence[tuple[float, float]]) -> Estimate:
    """Estimate sum(y) / sum(x) from independent pairs (y, x).

    The 95 % interval is unbounded for a single pair.
    """
    above, below = (sum(side) for side in zip(*pairs, strict=True))
    value = above / below
    looks = len(pairs)
    if looks < 2:
        return Estimate(value=value, low=0.0, high=math.inf)
    residuals = [y - value * x for y, x in pairs]
    error = statistics.stdev(residuals, xbar=0.0) * math.sqrt(looks) / below
    margin = (_T95[looks - 2] if looks - 2 < len(_T95) else _NORMAL95) * error
    return Estimate(value=value, low=max(value - margin, 0.0), high=value + margin)
