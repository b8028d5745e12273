"""Rows of the dataset for the contact sheet: an annotation and a thumbnail."""

import base64
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from kosmos2_core.errors import ImageError
from pipeline.errors import PipelineError
from pipeline.reading.row_images import Fetch

_JPEG_QUALITY = 82

# The columns that `card` needs.
CARD_COLUMNS = (
    *("shard_id", "index", "task", "key", "uri", "member", "image_offset", "image_size"),
    *("image_sha256", "width", "height", "caption", "entities", "issues"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A part of the caption; `entity` is the position of the entity whose phrase it is."""

    text: str
    entity: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A box in coordinates of 0..1. `change` is how it differs from another answer, if known."""

    x1: float
    y1: float
    x2: float
    y2: float
    score: float | None
    change: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Framed:
    phrase: str
    boxes: tuple[Frame, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """An annotation. `width` and `height` are the thumbnail's.

    `beside` has other annotations of the same image, which are shown next to this one, each under
    its `title`.
    """

    key: str
    shard: str
    index: int
    task: str
    width: int
    height: int
    pieces: tuple[Piece, ...]
    entities: tuple[Framed, ...]
    issues: tuple[str, ...]
    title: str = ""
    beside: tuple["Card", ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumbnail:
    """A small image. `image` is a data URL; if it is None, `problem` says why."""

    image: str | None = None
    problem: str = ""


def card(
    row: Mapping[str, Any], *, side: int, title: str = "", changes: Sequence[str] = ()
) -> Card:
    """Return the card of a row; `side` is the longer side of the thumbnail, in pixels.

    `changes` has one item for each box, in the order of the entities, unless it is empty.
    """
    width, height = thumbnail_size(row["width"], row["height"], side)
    change = iter(changes)
    return Card(
        key=row["key"],
        shard=row["shard_id"],
        index=row["index"],
        task=row["task"],
        width=width,
        height=height,
        pieces=tuple(_pieces(row["caption"], row["entities"])),
        entities=tuple(
            Framed(
                phrase=entity["phrase"],
                boxes=tuple(_frame(box, next(change, "")) for box in entity["boxes"]),
            )
            for entity in row["entities"]
        ),
        issues=tuple(row["issues"]),
        title=title,
    )


def thumbnail_size(width: int, height: int, side: int) -> tuple[int, int]:
    scale = min(side / max(width, height), 1)
    return max(round(width * scale), 1), max(round(height * scale), 1)


def thumbnail(fetch: Fetch, size: tuple[int, int], exif: Any) -> Thumbnail:
    """Return the thumbnail, or its problem if the image can no longer be fetched or decoded."""
    # This import loads torch, which `--help` does not need.
    from kosmos2_core.images.decode import upright_image

    try:
        image = upright_image(fetch(), exif=exif)
    except (PipelineError, ImageError) as error:
        return Thumbnail(problem=str(error))
    return Thumbnail(image=jpeg_url(image, size))


def jpeg_url(image: Image.Image, size: tuple[int, int]) -> str:
    """Return a data URL of the image at that width and height."""
    buffer = io.BytesIO()
    image.resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _pieces(caption: str, entities: Sequence[Mapping[str, Any]]) -> Iterator[Piece]:
    position = 0
    for i, entity in enumerate(entities):
        if entity["start"] > position:
            yield Piece(text=caption[position : entity["start"]])
        yield Piece(text=caption[entity["start"] : entity["end"]], entity=i)
        position = entity["end"]
    if position < len(caption):
        yield Piece(text=caption[position:])


def _frame(box: Mapping[str, Any], change: str) -> Frame:
    corners = {name: round(box[name], 5) for name in ("x1", "y1", "x2", "y2")}
    score = box["score"]
    has_score = score is not None and math.isfinite(score)  # JSON has no NaN
    return Frame(**corners, score=round(score, 3) if has_score else None, change=change)
