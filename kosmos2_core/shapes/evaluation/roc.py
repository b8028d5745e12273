"""The area under the ROC curve of a score, with its uncertainty."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_RESAMPLES = 1000
_LEVELS = (0.025, 0.975)  # quantiles of a 95 % interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Auc:
    """An area under the ROC curve; `low`, `high`: 95 % percentile interval of the bootstrap."""

    value: float
    low: float
    high: float


def roc_auc(scores: NDArray[np.float64], is_right: NDArray[np.bool_]) -> float:
    """Return the probability that a correct item scores above a wrong one (Mann-Whitney).

    Ties count half. NaN if all items are correct or all are wrong.
    """
    right, wrong = scores[is_right], np.sort(scores[~is_right])
    if not len(right) or not len(wrong):
        return float("nan")
    below = np.searchsorted(wrong, right, "left") + np.searchsorted(wrong, right, "right")
    return float(below.mean() / (2 * len(wrong)))


def bootstrapped_auc(
    scores: Sequence[float], is_right: Sequence[bool], groups: Sequence[int], seed: int = 0
) -> Auc:
    """Return the ROC-AUC with its bootstrap interval; NaN as `roc_auc`.

    Whole groups (images) are drawn with replacement, because the boxes of an image are not
    independent.
    """
    nan = float("nan")
    values, truth = np.asarray(scores, np.float64), np.asarray(is_right, np.bool_)
    if truth.all() or not truth.any():
        return Auc(value=nan, low=nan, high=nan)
    group_ids = np.asarray(groups)
    members = [np.flatnonzero(group_ids == group) for group in np.unique(group_ids)]
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(_RESAMPLES):
        drawn = np.concatenate(
            [members[at] for at in rng.integers(len(members), size=len(members))]
        )
        found.append(roc_auc(values[drawn], truth[drawn]))
    low, high = np.nanquantile(found, _LEVELS)
    return Auc(value=roc_auc(values, truth), low=float(low), high=float(high))
