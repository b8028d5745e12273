"""The annotation in the form that all formats use."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from kosmos2_core.annotation import Box, Entity, Grounding
from pipeline.errors import CorruptOutput, SpecError
from pipeline.exports.options import ExportOptions, Score
from pipeline.review.curve import Curve
from pipeline.schema import ANNOTATION, entity_of
from pipeline.spec.fields import fields_of

# An id combines both numbers. JSON readers hold integers up to 2^53 exactly.
_INDEX_BITS = 31
_MAX_ORDINAL = 2**22
LAST_ORDINAL = _MAX_ORDINAL - 1

# Fields of entities and boxes that other tools can use.
ENTITY_NAMES = ("phrase", "start", "end", "phrase_logprob")
BOX_NAMES = ("x1", "y1", "x2", "y2", "score", "logp", "consistency", "source")


def _joint(entity: Entity, box: Box) -> float | None:
    """Return the score of a box times that of its phrase, which is 1 for a phrase of the prompt."""
    return None if box.score is None else box.score * math.exp(entity.phrase_logprob or 0.0)


def _check_spans(row: Mapping[str, Any], grounding: Grounding) -> None:
    for entity in grounding.entities:
        if grounding.caption[entity.start : entity.end] != entity.phrase:
            raise CorruptOutput(
                f"{row['shard_id']} #{row['index']} ({row['task']}): the span of "
                f"{entity.phrase!r} does not match the caption; annotate that shard again"
            )


# Functions that `--score` names. A score is None if the box was given in the prompt.
SCORE_FUNCTIONS: dict[Score, Callable[[Entity, Box], float | None]] = {
    "mass": lambda _, box: box.score,
    "joint": _joint,
    "logp": lambda _, box: None if box.logp is None else math.exp(box.logp),
    "consistency": lambda _, box: box.consistency,
    "calibrated": lambda _, box: box.score,  # what the curve of people's judgements is applied to
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFile:
    data: bytes  # an encoded file, upright
    extension: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A row of the dataset.

    `image_id` (1 .. 2^53) identifies the image by its place in the plan, so it is the same in every
    export. `name` identifies this example and is a valid file name: letters, digits, "_" and "-".
    The `score` of a box is the requested one. `image` is None if images are only referenced, by
    `file_name` (`references.reference`).
    """

    image_id: int
    name: str
    file_name: str
    split: str
    shard_id: str
    index: int
    task: str
    key: str
    uri: str
    member: str | None
    image_offset: int | None
    image_size: int | None
    image_sha256: str
    width: int
    height: int
    prompt: str
    caption: str
    entities: tuple[Entity, ...]
    finish_reason: str
    issues: tuple[str, ...]
    metadata: str | None
    columns: Mapping[str, Any] = field(default_factory=dict)  # columns of --carry
    image: ImageFile | None = None

    @property
    def image_name(self) -> str:
        """Name of the embedded file, else of the referenced one."""
        return f"{self.name}.{self.image.extension}" if self.image else self.file_name

    @property
    def boxes(self) -> list[tuple[Entity, Box]]:
        return [(entity, box) for entity in self.entities for box in entity.boxes]

    def entity_records(self) -> list[dict[str, Any]]:
        """Return the entities for JSON and Arrow."""
        return [
            {**entity_values(entity), "boxes": [box_values(box) for box in entity.boxes]}
            for entity in self.entities
        ]

    def pixels(self, box: Box) -> tuple[float, float, float, float]:
        """Return x1, y1, x2, y2 on the upright image, to a hundredth of a pixel."""
        x1, x2 = (round(x * self.width, 2) for x in (box.x1, box.x2))
        y1, y2 = (round(y * self.height, 2) for y in (box.y1, box.y2))
        return x1, y1, x2, y2

    def carried(self) -> dict[str, Any]:
        """Return the sample's own fields, including those that have columns."""
        columns = {name: value for name, value in self.columns.items() if value is not None}
        return {**fields_of(self.metadata), **columns}

    def carried_columns(self, taken: Iterable[str]) -> dict[str, Any]:
        """Return the values of --carry, by the names that `carried_fields` gives them."""
        return dict(zip(_free_names(self.columns, taken), self.columns.values(), strict=True))

    def url(self) -> str:
        """Return the sample's field `url`, else the URI of the file that holds the image."""
        url = self.carried().get("url")
        return url if isinstance(url, str) and url else self.uri


def entity_values(entity: Entity) -> dict[str, Any]:
    return {name: getattr(entity, name) for name in ENTITY_NAMES}


def box_values(box: Box) -> dict[str, Any]:
    return {name: getattr(box, name) for name in BOX_NAMES}


def example_fields(names: Iterable[str]) -> list[pa.Field]:
    """Return columns of a table of examples, with the dataset's types; all of them can be null."""
    types = {"image_id": pa.int64(), "split": pa.string(), "image_sha256": pa.string()}
    return [pa.field(name, types.get(name) or ANNOTATION.field(name).type) for name in names]


def carried_fields(columns: Sequence[pa.Field], taken: Sequence[str]) -> list[pa.Field]:
    """Return the columns of --carry for a table that already has the columns `taken`."""
    names = _free_names((column.name for column in columns), taken)
    return [column.with_name(name) for column, name in zip(columns, names, strict=True)]


def _free_names(names: Iterable[str], taken: Iterable[str]) -> list[str]:
    return [f"sample_{name}" if name in taken else name for name in names]


# Columns of the dataset that an example copies.
_SAME = (
    *("shard_id", "index", "task", "key", "uri", "member", "image_offset", "image_size"),
    *("width", "height", "prompt", "finish_reason", "metadata"),
)
EXAMPLE_COLUMNS = (
    *_SAME,
    *("image_sha256", "exif_orientation", "caption", "prompt_chars", "entities", "issues"),
)


def example_of(
    row: Mapping[str, Any],
    *,
    ordinal: int,
    options: ExportOptions,
    has_task_in_name: bool,
    file_name: str,
    carried: Sequence[str] = (),
    curve: Curve | None = None,
) -> Example:
    """Make an example of a row.

    `ordinal` is the shard's position in the plan; `carried` names the columns of --carry; `curve`
    calibrates the scores. Raises CorruptOutput, SpecError.
    """
    grounding = Grounding(
        caption=row["caption"],
        entities=tuple(entity_of(entity) for entity in row["entities"]),
        issues=(),
        prompt_chars=row["prompt_chars"],
    )
    if options.strip_prompt:
        grounding = grounding.without_prompt()
    _check_spans(row, grounding)
    name = f"{row['shard_id']}-{row['index']:06d}"
    task = re.sub(r"[^A-Za-z0-9_-]+", "_", row["task"])
    return Example(
        **{column: row[column] for column in _SAME},
        image_id=image_id(ordinal, row["index"]),
        name=f"{name}-{task}" if has_task_in_name else name,
        file_name=file_name,
        split=split_of(row["image_sha256"], options.shares),
        image_sha256=row["image_sha256"].hex(),
        caption=grounding.caption,
        entities=tuple(
            _scored(entity, SCORE_FUNCTIONS[options.score], curve) for entity in grounding.entities
        ),
        issues=tuple(row["issues"]),
        columns={name: row[name] for name in carried},
    )


def image_id(ordinal: int, index: int) -> int:
    """Return the id of an image. Raises SpecError for a plan of more than 2^22 shards."""
    if ordinal >= _MAX_ORDINAL:
        raise SpecError(
            f"shard {ordinal} of the plan has no image id that JSON can hold: an export is limited "
            f"to {_MAX_ORDINAL} shards; make larger shards"
        )
    return (ordinal << _INDEX_BITS) + index + 1


def split_of(image_sha256: bytes, shares: Mapping[str, float]) -> str:
    """Return the split of an image. It depends only on the image's hash, so it never changes."""
    place = int.from_bytes(image_sha256[:8], "big") / 2**64
    for name, share in shares.items():
        place -= share
        if place < 0:
            return name
    return name  # the shares add up to 1, except for rounding


def _scored(
    entity: Entity, score: Callable[[Entity, Box], float | None], curve: Curve | None
) -> Entity:
    def of(box: Box) -> float | None:
        value = score(entity, box)
        return value if value is None or curve is None else curve(value)

    return replace(entity, boxes=tuple(replace(box, score=of(box)) for box in entity.boxes))
