"""A static HTML page of annotated images: boxes drawn, phrases coloured, nothing loaded.

Captions, keys and messages come from the data, so the template escapes everything, and the
page's own policy forbids scripts and requests.
"""

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from kosmos2_core.errors import ImageError
from pipeline.errors import PipelineError
from pipeline.files import footer_metadata
from pipeline.job import Job
from pipeline.pictures import encoded_picture
from pipeline.storage import InputStore, ObjectInfo

THUMBNAIL = 480  # pixels, the longer side
_JPEG_QUALITY = 82
# Okabe and Ito's palette, which colour-blind people can tell apart, without its black.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442")


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A stretch of the caption; `colour` and `scores` where it is the phrase of an entity."""

    text: str
    colour: str | None = None
    scores: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A box in thumbnail pixels."""

    x: float
    y: float
    width: float
    height: float
    colour: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One annotation. `image` is a data URL; None where `problem` says why there is none."""

    title: str
    task: str
    image: str | None
    problem: str
    width: int
    height: int
    frames: tuple[Frame, ...]
    caption: tuple[Piece, ...]
    issues: tuple[str, ...]


def contact_sheet(job: Job, inputs: InputStore, *, count: int) -> str:
    """HTML with up to `count` annotations, spread over the committed shards and their rows.

    Raises PipelineError where the output cannot be read. A picture that cannot be fetched or
    decoded any more leaves a note in its place.
    """
    environment = Environment(
        loader=PackageLoader("pipeline.report", "."), autoescape=True, undefined=StrictUndefined
    )
    template = environment.get_template("contact_sheet.html.jinja")
    cards = list(_cards(job, inputs, count))
    return template.render(cards=cards, output=job.store.uri, model=job.record.model)


def _cards(job: Job, inputs: InputStore, count: int) -> Iterator[Card]:
    names = job.store.list("annotations/")
    chosen = _spread(names, count)
    for place, name in enumerate(chosen):
        share = (count * (place + 1)) // len(chosen) - (count * place) // len(chosen)
        with job.store.open(name) as file:
            table = pq.read_table(file)
            source = _source(pq.ParquetFile(file).metadata)
        for i in _spread(range(table.num_rows), share):
            yield _card(table.slice(i, 1), source, inputs, job.record.identity.exif)


def _spread(items: Sequence[Any], count: int) -> list[Any]:
    """At most `count` of them, evenly spaced."""
    if len(items) <= count:
        return list(items)
    return [items[(i * len(items)) // count] for i in range(count)]


def _source(footer: pq.FileMetaData) -> ObjectInfo:
    metadata = footer_metadata(footer)
    return ObjectInfo(
        uri=metadata["input_uri"],
        size_bytes=int(metadata["input_size"]),
        etag=metadata["input_etag"],
    )


def _card(table: pa.Table, source: ObjectInfo, inputs: InputStore, exif: Any) -> Card:
    row = table.to_pylist()[0]
    scale = min(THUMBNAIL / max(row["width"], row["height"]), 1)
    width, height = max(round(row["width"] * scale), 1), max(round(row["height"] * scale), 1)
    image, problem = _thumbnail(row, source, inputs, (width, height), exif)
    colours = dict(zip(range(len(row["entities"])), cycle(_COLOURS), strict=False))
    return Card(
        title=f"{row['key']} · {row['shard_id']} #{row['index']}",
        task=row["task"],
        image=image,
        problem=problem,
        width=width,
        height=height,
        frames=tuple(
            _frame(box, entity["phrase"], colours[i], width, height)
            for i, entity in enumerate(row["entities"])
            for box in entity["boxes"]
        ),
        caption=tuple(_pieces(row["caption"], row["entities"], colours)),
        issues=tuple(row["issues"]),
    )


def _thumbnail(
    row: dict[str, Any], source: ObjectInfo, inputs: InputStore, size: tuple[int, int], exif: Any
) -> tuple[str | None, str]:
    from kosmos2_core.images import upright_image  # loads torch, which `--help` need not wait for

    try:
        picture = upright_image(encoded_picture(row, source, inputs), exif=exif)
    except (PipelineError, ImageError) as error:
        return None, str(error)
    buffer = io.BytesIO()
    picture.resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}", ""


def _frame(box: dict[str, Any], phrase: str, colour: str, width: int, height: int) -> Frame:
    return Frame(
        x=box["x1"] * width,
        y=box["y1"] * height,
        width=(box["x2"] - box["x1"]) * width,
        height=(box["y2"] - box["y1"]) * height,
        colour=colour,
        label=f"{phrase} {_score(box)}".strip(),
    )


def _score(box: dict[str, Any]) -> str:
    return "" if box["score"] is None else f"{box['score']:.2f}"


def _pieces(
    caption: str, entities: Sequence[dict[str, Any]], colours: dict[int, str]
) -> Iterator[Piece]:
    position = 0
    for i, entity in enumerate(entities):
        if entity["start"] > position:
            yield Piece(text=caption[position : entity["start"]])
        yield Piece(
            text=caption[entity["start"] : entity["end"]],
            colour=colours[i],
            scores=" ".join(_score(box) for box in entity["boxes"]),
        )
        position = entity["end"]
    yield Piece(text=caption[position:])
