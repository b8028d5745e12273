"""Answers of people, as Label Studio exports them in its format JSON, as judgements.

A person answers a task by an annotation: the regions that are left. A region belongs to the box of
its id. Label Studio gives regions of a prediction new ids when a person takes them over, so regions
of other ids go to the box that they overlap most.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kosmos2_core.grounding.grid import XYXY, area, iou
from pipeline.errors import SpecError
from pipeline.review.judgements import BoxPlace, BoxVerdict, Judgement, Review
from pipeline.review.tasks import LABELS, REVIEW_FIELD

_MOST_BYTES = 2**31
_LEAST_OVERLAP = 0.1  # IoU of a region with the box that it may have been moved from
_SAME = 0.98  # IoU of a box with itself, after the rounding of a browser
_Number = Annotated[float, Field(allow_inf_nan=False)]


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Asked(_Read):
    region: str
    entity: int = Field(ge=0)
    box: int = Field(ge=0)
    phrase: str
    score: float = Field(ge=0, le=1)
    probability: float = Field(gt=0, le=1)
    xyxy: tuple[_Number, _Number, _Number, _Number]


class _About(_Read):
    fingerprint: str
    boxes: tuple[_Asked, ...]


class _Value(_Read):
    x: _Number = 0.0
    y: _Number = 0.0
    width: _Number = 0.0
    height: _Number = 0.0
    rectanglelabels: tuple[str, ...] = ()
    text: tuple[str, ...] | str = ()


class _Result(_Read):
    id: str = ""
    type: str = ""
    value: _Value = _Value()


class _Annotation(_Read):
    id: int | str = ""
    completed_by: Any = None
    was_cancelled: bool | None = False
    updated_at: str = ""
    result: tuple[_Result, ...] = ()


class _Data(_Read):
    shard_id: str
    index: int = Field(ge=0)
    task: str
    review: _About = Field(alias=REVIEW_FIELD)


class _Task(_Read):
    data: _Data
    annotations: tuple[_Annotation, ...]


@dataclass(frozen=True, slots=True)
class _Region:
    id: str
    box: XYXY
    label: str
    phrase: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewAnswers:
    """Judgements, and counts of what was not taken: tasks without an answer, and boxes added."""

    review: Review
    tasks: int
    unanswered: int
    added_boxes: int

    @property
    def verdicts(self) -> Counter[str]:
        return Counter(judgement.verdict for judgement in self.review.judgements)


def read_answers(path: Path, fingerprint: str) -> ReviewAnswers:
    """Read answers about the dataset of a fingerprint. Raises SpecError for any other file."""
    tasks = [_checked(path, number, task) for number, task in enumerate(_read(path))]
    for task in tasks:
        if task.data.review.fingerprint != fingerprint:
            raise SpecError(
                f"{path} has answers about another dataset ({task.data.review.fingerprint}) than "
                f"this one ({fingerprint}); name the dataset that the boxes were chosen from"
            )
    judgements, added, unanswered = list[Judgement](), 0, 0
    for task in tasks:
        answers = [each for each in task.annotations if not each.was_cancelled]
        unanswered += not answers
        for answer in answers:
            found, more = _judged(task.data, answer)
            judgements += found
            added += more
    if not judgements:
        raise SpecError(f"{path} has no answers; export it after people have submitted tasks")
    return ReviewAnswers(
        review=Review(fingerprint=fingerprint, judgements=tuple(judgements)),
        tasks=len(tasks),
        unanswered=unanswered,
        added_boxes=added,
    )


def _read(path: Path) -> list[Any]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise SpecError(f"{path} is larger than 2 GiB; export parts of the project")
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise SpecError(
            f"{path} cannot be read ({error.strerror}); name the JSON export of Label Studio"
        ) from error
    except (ValueError, RecursionError) as error:
        raise SpecError(
            f"{path} is not JSON; name the export of Label Studio in its format JSON"
        ) from error
    if not isinstance(found, list):
        raise SpecError(
            f"{path} is no list of tasks; name an export of Label Studio in its format JSON"
        )
    return found


def _checked(path: Path, number: int, task: Any) -> _Task:
    try:
        return _Task.model_validate(task)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise SpecError(
            f"{path}: task {number} is none of `kosmos2 sample` with its answers ({where}: "
            f"{first['msg']}); name an export in Label Studio's format JSON, not JSON-MIN"
        ) from error


def _judged(data: _Data, answer: _Annotation) -> tuple[list[Judgement], int]:
    """Return a judgement per box that was asked about, and the number of regions without one."""
    regions = list(_regions(answer.result))
    found = _matched(data.review.boxes, regions)
    judgements = [
        _judgement(data, asked, found.get(number), answer)
        for number, asked in enumerate(data.review.boxes)
    ]
    return judgements, len(regions) - len(found)


def _regions(results: Sequence[_Result]) -> Iterator[_Region]:
    texts = {each.id: each.value.text for each in results if each.type == "textarea"}
    for each in results:
        value = each.value
        corners = (value.x, value.y, value.x + value.width, value.y + value.height)
        if each.type == "rectanglelabels" and value.width > 0 and value.height > 0:
            text = texts.get(each.id, "")
            yield _Region(
                id=each.id,
                box=tuple(corner / 100 for corner in corners),  # type: ignore[arg-type]
                label=value.rectanglelabels[0] if value.rectanglelabels else "",
                phrase=text if isinstance(text, str) else " ".join(text),
            )


def _matched(boxes: Sequence[_Asked], regions: Sequence[_Region]) -> dict[int, _Region]:
    """Return the region of each box by its number: by id first, then by overlap, largest first."""
    ids = {region.id: region for region in regions}
    found = {n: ids[box.region] for n, box in enumerate(boxes) if box.region in ids}
    taken = {region.id for region in found.values()}
    pairs = sorted(
        (
            (-_overlap(box.xyxy, region.box), box.phrase != region.phrase, n, at)
            for n, box in enumerate(boxes)
            for at, region in enumerate(regions)
            if n not in found and region.id not in taken
        ),
    )
    used = set[int]()
    for overlap, _, n, at in pairs:
        if -overlap >= _LEAST_OVERLAP and n not in found and at not in used:
            found[n] = regions[at]
            used.add(at)
    return found


def _judgement(
    data: _Data, asked: _Asked, region: _Region | None, answer: _Annotation
) -> Judgement:
    overlap = 0.0 if region is None else _overlap(asked.xyxy, region.box)
    return Judgement(
        place=BoxPlace(
            shard_id=data.shard_id,
            index=data.index,
            task=data.task,
            entity=asked.entity,
            box=asked.box,
        ),
        phrase=asked.phrase,
        score=asked.score,
        probability=asked.probability,
        person=_person(answer),
        verdict=_verdict(asked, region, overlap),
        iou=overlap,
        at=answer.updated_at,
    )


def _verdict(asked: _Asked, region: _Region | None, overlap: float) -> BoxVerdict:
    if region is None or region.label == LABELS[1]:
        return "rejected"
    if region.phrase and region.phrase.split() != asked.phrase.split():
        return "other_phrase"
    return "accepted" if overlap >= _SAME else "moved"


def _overlap(a: XYXY, b: XYXY) -> float:
    return min(iou(a, b), 1.0) if area(a) + area(b) > 0 else 0.0


def _person(answer: _Annotation) -> str:
    """Return a number or hash of Label Studio's; a name or an address is not kept."""
    person = answer.completed_by
    if isinstance(person, dict):
        person = person.get("id")
    return str(person) if isinstance(person, int) else f"annotation {answer.id}"
