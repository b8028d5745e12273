"""The precision of a dataset's boxes, estimated from judgements, with intervals."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from kosmos2_core.grounding.nouns import head_noun
from pipeline.review.judgements import JudgedBox

_Z = 1.96  # 95 % of a normal distribution
_BINS = 10
_MOST_CLASSES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """The share of right boxes in a group; `low`, `high`: 95 % interval. `boxes` were judged."""

    group: str
    boxes: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionReport:
    """Precisions of all boxes, and by task, by class of the phrase, and by score.

    Several people judged `judged_twice` of the boxes, and all of them agreed on `agreed`.
    """

    whole: Precision
    by_task: list[Precision]
    by_class: list[Precision]
    by_score: list[Precision]
    judged_twice: int
    agreed: int


def precision_report(boxes: Sequence[JudgedBox]) -> PrecisionReport:
    """Estimate precisions from at least one judged box. Classes are the 20 with most boxes."""
    several = [box for box in boxes if box.people > 1]
    classes = sorted(_groups(boxes, lambda box: head_noun(box.phrase)), key=lambda p: -p.boxes)
    return PrecisionReport(
        whole=_precision("all boxes", boxes),
        by_task=_groups(boxes, lambda box: box.task),
        by_class=classes[:_MOST_CLASSES],
        by_score=_groups(boxes, _bin),
        judged_twice=len(several),
        agreed=sum(box.right in (0, 1) for box in several),
    )


def wilson(value: float, count: float) -> tuple[float, float]:
    """Return the 95 % score interval of a share of `count` trials (Wilson, 1927).

    >>> [round(side, 3) for side in wilson(0.9, 50)]
    [0.786, 0.957]
    """
    centre = value + _Z**2 / (2 * count)
    off = _Z * math.sqrt(value * (1 - value) / count + _Z**2 / (4 * count**2))
    scale = 1 + _Z**2 / count
    return max((centre - off) / scale, 0.0), min((centre + off) / scale, 1.0)


def _groups(boxes: Iterable[JudgedBox], group_of: Callable[[JudgedBox], str]) -> list[Precision]:
    groups: dict[str, list[JudgedBox]] = {}
    for box in boxes:
        groups.setdefault(group_of(box), []).append(box)
    return [_precision(name, groups[name]) for name in sorted(groups)]


def _precision(group: str, boxes: Sequence[JudgedBox]) -> Precision:
    """Weigh each box with the number of boxes that it stands for, so no choice biases the value.

    Unequal weights tell less than as many equal ones: the interval is that of Kish's effective
    number of boxes (Survey Sampling, 1965).
    """
    weight = sum(box.weight for box in boxes)
    value = min(sum(box.weight * box.right for box in boxes) / weight, 1.0)
    effective = weight**2 / sum(box.weight**2 for box in boxes)
    low, high = wilson(value, effective)
    return Precision(group=group, boxes=len(boxes), value=value, low=low, high=high)


def _bin(box: JudgedBox) -> str:
    place = min(int(box.score * _BINS), _BINS - 1)
    return f"{place / _BINS} to {(place + 1) / _BINS}"
