"""Judgements of people about boxes, as they are kept in a dataset."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kosmos2_core.grounding.grid import RIGHT_IOU
from pipeline.dataset.layout import REVIEWS, review_key
from pipeline.errors import CorruptOutput, SpecError
from pipeline.review.curve import Curve, fit_curve
from pipeline.storage import OutputStore

BoxVerdict = Literal["accepted", "rejected", "moved", "other_phrase"]
_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BoxPlace(_Frozen):
    """A box of a dataset: its row, the position of its entity, and its position in the entity."""

    shard_id: str
    index: int = Field(ge=0)
    task: str
    entity: int = Field(ge=0)
    box: int = Field(ge=0)


class Judgement(_Frozen):
    """The answer of one person about one box.

    `score` is the one of the box, `probability` that of its choice into the sample. `iou` is that
    of the box with the one that the person left, 0 if the person left none. `person` is an
    identifier, and `at` the time of the answer, as text that can be compared.
    """

    place: BoxPlace
    phrase: str
    score: _Share
    probability: float = Field(gt=0, le=1, allow_inf_nan=False)
    person: str
    verdict: BoxVerdict
    iou: _Share
    at: str

    @property
    def is_right(self) -> bool:
        """Return whether the box is right: it was accepted, or moved by little (IoU >= 0.5)."""
        return self.verdict == "accepted" or (self.verdict == "moved" and self.iou >= RIGHT_IOU)


class Review(_Frozen):
    """The content of a file in `reviews/`."""

    fingerprint: str
    judgements: tuple[Judgement, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedBox:
    """A box with the answers of all people who judged it.

    `right` is the share of them who found it right. `weight` is the number of boxes that it stands
    for: 1 / the probability of its choice.
    """

    task: str
    phrase: str
    score: float
    weight: float
    right: float
    people: int


def keep_review(store: OutputStore, review: Review) -> bool:
    """Keep judgements in a dataset. Return False if it has the same ones already."""
    data = review.model_dump_json(indent=1).encode()
    key = review_key(data)
    if key in store.list(REVIEWS):
        return False
    store.create(key, data)  # the same bytes, if another import is faster
    return True


def people_boxes(store: OutputStore) -> list[JudgedBox]:
    """Return all boxes that people have judged, in the order of their places.

    Of several answers of a person about a box, the latest counts. Raises CorruptOutput.
    """
    latest: dict[tuple[BoxPlace, str], Judgement] = {}
    for judgement in _kept(store):
        key = judgement.place, judgement.person
        if key not in latest or latest[key].at <= judgement.at:
            latest[key] = judgement
    by_box = defaultdict[BoxPlace, list[Judgement]](list)
    for (place, _), judgement in latest.items():
        by_box[place].append(judgement)
    return [_together(by_box[place]) for place in sorted(by_box, key=lambda p: str(p.model_dump()))]


def curve_of(store: OutputStore) -> Curve:
    """Return the calibration of a dataset's scores. Raises SpecError if nobody judged a box."""
    boxes = people_boxes(store)
    if not boxes:
        raise SpecError(
            f"{store.uri} has no judgements of people, which calibrated scores rest on; choose "
            "boxes with `kosmos2 sample`, have them judged, and read the answers with `kosmos2 "
            "review import`"
        )
    return fit_curve(
        [box.score for box in boxes], [box.right for box in boxes], [box.weight for box in boxes]
    )


def _kept(store: OutputStore) -> Iterable[Judgement]:
    for key in store.list(REVIEWS):
        try:
            yield from Review.model_validate_json(store.get(key).data).judgements
        except ValidationError as error:
            raise CorruptOutput(
                f"{store.uri}/{key} cannot be read as judgements; delete it, and import its "
                "answers again"
            ) from error


def _together(judgements: list[Judgement]) -> JudgedBox:
    first = judgements[0]
    return JudgedBox(
        task=first.place.task,
        phrase=first.phrase,
        score=first.score,
        weight=1 / max(each.probability for each in judgements),
        right=sum(each.is_right for each in judgements) / len(judgements),
        people=len(judgements),
    )
