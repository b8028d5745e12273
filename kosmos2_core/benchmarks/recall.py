"""Recall by the any-box protocol, and the calibration of box scores.

A query is answered within k if one of the first k boxes, in the order of generation, has an IoU of
0.5 or more with an accepted box. A query without a box is not answered.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kosmos2_core.annotation import Annotation, Box
from kosmos2_core.benchmarks.queries import Query
from kosmos2_core.grounding.grid import RIGHT_IOU, iou

_BINS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryResult:
    """The answer to one query.

    `ious` has the best IoU with an accepted box, for each box in the order of generation. `score`
    is the score of the first box, None if there is no box.
    """

    ious: tuple[float, ...]
    score: float | None

    def is_right(self, k: int | None = None) -> bool:
        """Return whether one of the first `k` boxes is correct; None takes all boxes."""
        return max(self.ious[:k], default=0.0) >= RIGHT_IOU


def query_result(query: Query, annotation: Annotation) -> QueryResult:
    """Compare the boxes of an annotation with those of its query."""
    boxes = _boxes_of(query.phrase, annotation)
    return QueryResult(
        ious=tuple(max(iou(box.xyxy, truth) for truth in query.truth) for box in boxes),
        score=boxes[0].score if boxes else None,
    )


def _boxes_of(phrase: str, annotation: Annotation) -> list[Box]:
    """Return the generated boxes of exactly this phrase."""
    return [
        box
        for entity in annotation.entities
        if entity.phrase.split() == phrase.split()
        for box in entity.boxes
        if box.source == "model"
    ]


def recall(answers: Sequence[QueryResult], k: int | None) -> float:
    """Return the share of queries answered within `k` boxes, in 0..1; NaN without queries."""
    return float(np.mean([answer.is_right(k) for answer in answers])) if answers else float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """First boxes with a score in [`low`, `high`): mean score, and share of correct boxes."""

    low: float
    high: float
    count: int
    score: float
    right: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """A reliability diagram.

    `error` is the expected calibration error: the mean difference between score and share.
    """

    bins: tuple[Bin, ...]
    error: float


def reliability(answers: Iterable[QueryResult]) -> Reliability:
    """Compare the scores of first boxes with the share of correct ones, without empty bins."""
    scored = [(a.score, a.is_right(1)) for a in answers if a.score is not None]
    scores = np.array([score for score, _ in scored], np.float64)
    right = np.array([is_right for _, is_right in scored], np.bool_)
    places = np.clip((scores * _BINS).astype(np.int64), 0, _BINS - 1)
    bins = tuple(_bin(at, scores[places == at], right[places == at]) for at in np.unique(places))
    gaps = [bin_.count * abs(bin_.score - bin_.right) for bin_ in bins]
    return Reliability(bins=bins, error=sum(gaps) / len(scored) if scored else float("nan"))


def _bin(at: int, scores: NDArray[np.float64], right: NDArray[np.bool_]) -> Bin:
    return Bin(
        low=int(at) / _BINS,
        high=(int(at) + 1) / _BINS,
        count=len(scores),
        score=float(scores.mean()),
        right=float(right.mean()),
    )
