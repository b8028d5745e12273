"""Counts of very many numbers in [0, 1]: quantiles to a thousandth, in bounded memory."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_BINS = 1000

Counts = npt.NDArray[np.int64]


@dataclass(slots=True, kw_only=True)
class Shares:
    """Counts of numbers in [0, 1]; `missing` counts nulls."""

    counts: Counts = field(default_factory=lambda: np.zeros(_BINS, np.int64))
    missing: int = 0

    def add(self, values: pa.Array) -> None:
        self.missing += values.null_count
        known = values.drop_null().to_numpy()
        self.add_counted(known, np.ones(len(known), np.int64))

    def add_counted(self, values: npt.NDArray[np.floating], times: Counts) -> None:
        """Add each value as often as `times` says."""
        bins = np.clip((values * _BINS).astype(np.int64), 0, _BINS - 1)
        np.add.at(self.counts, bins, times)

    def merge(self, other: "Shares") -> None:
        self.missing += other.missing
        self.counts += other.counts

    def quantiles(self, levels: tuple[float, ...]) -> list[float] | None:
        """Return the middle of each quantile's bin; None if there are no numbers."""
        found = quantiles(self.counts, levels)
        return None if found is None else [(at + 0.5) / _BINS for at in found]

    def in_bins(self, bins: int) -> Counts:
        """Return the counts in `bins` equal bins; `bins` must divide 1000."""
        coarse: Counts = self.counts.reshape(bins, -1).sum(axis=1)
        return coarse


def quantiles(counts: Counts, levels: tuple[float, ...]) -> list[int] | None:
    """Return the quantiles of counted integers; None if nothing was counted.

    `counts[i]` is the frequency of i. The quantile of a level in [0, 1] is the smallest i whose
    cumulative share reaches the level.
    """
    below = counts.cumsum()
    if not below[-1]:
        return None
    wanted = np.maximum(np.asarray(levels) * below[-1], 1)
    return [int(at) for at in np.searchsorted(below, wanted, "left")]
