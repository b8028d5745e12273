"""Counts of the differences of a task, and the shifts of its figures with bootstrap intervals.

The bootstrap resamples images. Sums are kept per bucket of images, so their size does not depend on
the number of images; a bucket is chosen by the image's hash, and buckets are resampled.
"""

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeGuard

import numpy as np
import numpy.typing as npt

from pipeline.comparison.matching import Comparison
from pipeline.costs.interval import Estimate

_BUCKETS = 1024
_RESAMPLES = 1000
_LEVELS = (2.5, 97.5)  # percentiles: a 95 % interval
_SEED = 0

# Sums over the pairs of a task. Scores are sums over the boxes that have one.
_SUMS = (
    *("pairs", "captions_changed", "changed", "same", "moved", "moved_iou", "renamed"),
    *("lost", "gained", "boxes_a", "boxes_b", "score_a", "scored_a", "score_b", "scored_b"),
    *("matched_score_a", "matched_score_b", "matched_scored"),
)
_PLACES = {name: place for place, name in enumerate(_SUMS)}
# Figure -> its sum and what that is divided by, in A and in B.
_FIGURES = {
    "boxes per annotation": (("boxes_a", "pairs"), ("boxes_b", "pairs")),
    "score of all boxes": (("score_a", "scored_a"), ("score_b", "scored_b")),
    "score of matched boxes": (
        ("matched_score_a", "matched_scored"),
        ("matched_score_b", "matched_scored"),
    ),
}

_Sums = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """A figure in both datasets, and the shift from A to B with a 95 % interval.

    The interval is unbounded for a single image.
    """

    a: float
    b: float
    shift: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDifferences:
    """The differences of the annotations of one task.

    `joined` annotations are in both datasets; all but `only_in_a` and `only_in_b` count only those.
    `changed` ones have another caption, or a box that is not the same. `boxes_renamed` counts boxes
    that are the same or moved, but have another phrase. `moved_iou` is the mean IoU of moved boxes.
    `flags` has the share of annotations with each flag.
    """

    joined: int
    only_in_a: int
    only_in_b: int
    changed: int
    captions_changed: int
    boxes_same: int
    boxes_moved: int
    boxes_lost: int
    boxes_gained: int
    boxes_renamed: int
    moved_iou: float | None
    shifts: dict[str, Shift]
    flags: dict[str, Shift]


@dataclass(slots=True)
class TaskCounts:
    """Sums over the pairs of one task, by bucket."""

    sums: _Sums = field(default_factory=lambda: np.zeros((_BUCKETS, len(_SUMS))))
    flags: dict[str, _Sums] = field(
        default_factory=lambda: defaultdict(lambda: np.zeros((_BUCKETS, 2)))
    )

    def add(self, found: Comparison) -> None:
        bucket = int.from_bytes(found.pair.a["image_sha256"][:4], "big") % _BUCKETS
        row = self.sums[bucket]
        for name, value in _sums_of(found):
            row[_PLACES[name]] += value
        for side, answer in enumerate((found.pair.a, found.pair.b)):
            for flag in set(answer["issues"]):
                self.flags[flag][bucket, side] += 1

    def result(self, *, only_in_a: int, only_in_b: int) -> TaskDifferences:
        total = dict(zip(_SUMS, self.sums.sum(axis=0).tolist(), strict=True))
        return TaskDifferences(
            joined=int(total["pairs"]),
            only_in_a=only_in_a,
            only_in_b=only_in_b,
            changed=int(total["changed"]),
            captions_changed=int(total["captions_changed"]),
            boxes_same=int(total["same"]),
            boxes_moved=int(total["moved"]),
            boxes_lost=int(total["lost"]),
            boxes_gained=int(total["gained"]),
            boxes_renamed=int(total["renamed"]),
            moved_iou=total["moved_iou"] / total["moved"] if total["moved"] else None,
            shifts=dict(self._shifts()),
            flags={name: self._of_flag(name) for name in sorted(self.flags)},
        )

    def _shifts(self) -> Iterator[tuple[str, Shift]]:
        for name, (a, b) in _FIGURES.items():
            columns = np.stack([self._column(each) for each in (*a, *b)], axis=1)
            if columns[:, 1].any() and columns[:, 3].any():
                yield name, _shift(columns, self._column("pairs"))

    def _of_flag(self, flag: str) -> Shift:
        pairs, counts = self._column("pairs"), self.flags[flag]
        columns = np.stack([counts[:, 0], pairs, counts[:, 1], pairs], axis=1)
        return _shift(columns, pairs)

    def _column(self, name: str) -> _Sums:
        return self.sums[:, _PLACES[name]]


def _sums_of(found: Comparison) -> Iterator[tuple[str, float]]:
    yield "pairs", 1
    yield "captions_changed", not found.is_caption_same
    yield "changed", not found.is_same
    yield "lost", found.lost
    yield "gained", found.gained
    for side, boxes in (("a", found.boxes_a), ("b", found.boxes_b)):
        yield f"boxes_{side}", len(boxes)
        for box in boxes:
            if _is_score(box.score):
                yield f"score_{side}", box.score
                yield f"scored_{side}", 1
    for match in found.matches:
        yield ("same", 1) if match.is_same else ("moved", 1)
        yield "moved_iou", 0 if match.is_same else match.overlap
        yield "renamed", match.is_renamed
        if _is_score(match.a.score) and _is_score(match.b.score):
            yield "matched_score_a", match.a.score
            yield "matched_score_b", match.b.score
            yield "matched_scored", 1


def _is_score(score: float | None) -> TypeGuard[float]:
    return score is not None and math.isfinite(score)


def _shift(columns: _Sums, pairs: _Sums) -> Shift:
    """Return the shift of sum / number; `columns` [buckets, 4] has those of A, then those of B."""
    columns = columns[pairs > 0]
    a, b = _ratios(columns.sum(axis=0))
    low, high = -math.inf, math.inf
    if len(columns) > 1:
        of_a, of_b = _ratios((_draws(len(columns)) @ columns).T)
        low, high = np.nanpercentile(of_b - of_a, _LEVELS)
    shift = Estimate(value=float(b - a), low=float(low), high=float(high))
    return Shift(a=float(a), b=float(b), shift=shift)


@lru_cache(maxsize=1)
def _draws(buckets: int) -> _Sums:
    """Return how often each resample draws each bucket: [resamples, buckets]."""
    draws = np.random.default_rng(_SEED).multinomial(
        buckets, np.full(buckets, 1 / buckets), size=_RESAMPLES
    )
    return draws.astype(np.float64)


def _ratios(sums: _Sums) -> tuple[_Sums, _Sums]:
    """Return sum / number of A and of B; NaN where a resample has no such box."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums[0] / sums[1], sums[2] / sums[3]
