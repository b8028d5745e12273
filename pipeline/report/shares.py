"""Very many numbers in [0, 1], counted: their quantiles to a thousandth, in bounded memory."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_BINS = 1000

Counts = npt.NDArray[np.int64]


@dataclass(slots=True, kw_only=True)
class Shares:
    """`missing` counts nulls."""

    counts: Counts = field(default_factory=lambda: np.zeros(_BINS, np.int64))
    missing: int = 0

    def add(self, values: pa.Array) -> None:
        self.missing += values.null_count
        known = values.drop_null().to_numpy()
        self.add_counted(known, np.ones(len(known), np.int64))

    def add_counted(self, values: npt.NDArray[np.floating], times: Counts) -> None:
        """Each value so many times."""
        bins = np.clip((values * _BINS).astype(np.int64), 0, _BINS - 1)
        np.add.at(self.counts, bins, times)

    def merge(self, other: "Shares") -> None:
        self.missing += other.missing
        self.counts += other.counts

    def quantiles(self, levels: tuple[float, ...]) -> list[float] | None:
        """The middle of the bin that each lies in; None where there are no numbers."""
        found = quantiles(self.counts, levels)
        return None if found is None else [(at + 0.5) / _BINS for at in found]

    def in_bins(self, bins: int) -> Counts:
        """`bins` divides 1000."""
        coarse: Counts = self.counts.reshape(bins, -1).sum(axis=1)
        return coarse


def quantiles(counts: Counts, levels: tuple[float, ...]) -> list[int] | None:
    """`counts[i]` says how many are i. For each level in [0, 1] the smallest i that so large a
    part does not exceed; None where nothing was counted."""
    below = counts.cumsum()
    if not below[-1]:
        return None
    wanted = np.maximum(np.asarray(levels) * below[-1], 1)
    return [int(at) for at in np.searchsorted(below, wanted, "left")]
