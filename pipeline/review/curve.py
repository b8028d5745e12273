"""The calibration of scores: the share of boxes of a score that people found right."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A curve that never falls. Between its points it is linear, beyond them constant.

    `judged` are the scores of the judged boxes in ascending order, with their `weights`: the number
    of boxes of the dataset that each stands for.
    """

    scores: tuple[float, ...]
    precisions: tuple[float, ...]
    judged: tuple[float, ...]
    weights: tuple[float, ...]

    def __call__(self, score: float) -> float:
        """Return the estimated probability that a box of this score is right."""
        return float(np.interp(score, self.scores, self.precisions))

    @property
    def judgements(self) -> int:
        """Number of judged boxes that the curve rests on."""
        return len(self.judged)

    def threshold(self, precision: float) -> tuple[float | None, float]:
        """Return the lowest score from which on boxes are right this often, and their precision.

        If no score is high enough, return None and the best precision.
        """
        judged, weights = np.asarray(self.judged), np.asarray(self.weights)
        values = np.interp(judged, self.scores, self.precisions)
        mean = np.cumsum((weights * values)[::-1])[::-1] / np.cumsum(weights[::-1])[::-1]
        starts = np.unique(judged, return_index=True)[1]  # equal scores are kept together
        enough = starts[mean[starts] >= precision - 1e-9]
        if not len(enough):
            return None, float(mean.max())
        return float(judged[enough[0]]), float(mean[enough[0]])


def fit_curve(scores: Sequence[float], rights: Sequence[float], weights: Sequence[float]) -> Curve:
    """Fit a curve to judged boxes by weighted isotonic regression.

    Args:
        scores: Scores of the boxes, at least one.
        rights: Share of judges who found each box right, in [0, 1].
        weights: Number of boxes that each stands for, positive.
    """
    order = np.argsort(np.asarray(scores, np.float64), kind="stable")
    x, y, w = (np.asarray(values, np.float64)[order] for values in (scores, rights, weights))
    blocks = _pooled(x, y, w)
    points = dict.fromkeys(
        (end, block.right) for block in blocks for end in (block.low, block.high)
    )
    return Curve(
        scores=tuple(score for score, _ in points),
        precisions=tuple(right for _, right in points),
        judged=tuple(x.tolist()),
        weights=tuple(w.tolist()),
    )


class _Block(NamedTuple):
    low: float
    high: float
    right: float
    weight: float


def _pooled(x: _Floats, y: _Floats, w: _Floats) -> list[_Block]:
    """Return the blocks of the pool-adjacent-violators rule, by ascending score.

    Neighbours are pooled until no block is above the next one: Ayer et al., An empirical
    distribution function for sampling with incomplete information, 1955.
    """
    blocks: list[_Block] = []
    for score in np.unique(x).tolist():
        same = x == score
        weight = float(w[same].sum())
        block = _Block(score, score, float((y[same] * w[same]).sum() / weight), weight)
        while blocks and blocks[-1].right >= block.right:
            block = _merged(blocks.pop(), block)
        blocks.append(block)
    return blocks


def _merged(a: _Block, b: _Block) -> _Block:
    weight = a.weight + b.weight
    return _Block(a.low, b.high, (a.right * a.weight + b.right * b.weight) / weight, weight)
