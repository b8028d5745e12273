"""A small dataset to export: two kinds of archive, two tasks, a rejected sample, an open shard."""

import io
import json
from pathlib import Path
from typing import Any

from PIL import Image

from kosmos2_core.annotation import Annotation, Box, Entity
from pipeline.dataset.dataset import StoredDataset
from pipeline.exports.coverage import Coverage
from pipeline.exports.exporting import export_dataset
from pipeline.exports.options import ExportOptions
from pipeline.storage import InputStore, open_output
from tests.support.commits import write_dataset
from tests.support.tars import an_annotation, picture

STORED = (60, 40)  # pixels, before EXIF


def photo(*, kind: str = "JPEG", orientation: int = 1, seed: int = 0) -> bytes:
    """Four colours, so that each turn shows."""
    image = Image.new("RGB", STORED, (200, 30, seed))
    for colour, corner in (
        ((20, 180, 40), (30, 0)),
        ((30, 40, 210), (0, 20)),
        ((240,) * 3, (30, 20)),
    ):
        image.paste(colour, (*corner, corner[0] + 30, corner[1] + 20))
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    options = {"quality": 95} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    image.save(buffer, kind, **options, **({"exif": exif} if orientation != 1 else {}))
    return buffer.getvalue()


def a_box(*corners: float, score: float | None = 0.5, **changes: Any) -> Box:
    x1, y1, x2, y2 = corners
    logp = None if score is None else score - 1.5
    return Box(x1=x1, y1=y1, x2=x2, y2=y2, ul=0, lr=1023, score=score, logp=logp, **changes)


def answer(prompt: str, rest: str, boxes: dict[str, list[Box]], **changes: Any) -> Annotation:
    """The caption is the prompt's words, a space, and the rest; `boxes` by phrase."""
    caption = f"{prompt} {rest}".strip()
    entities = [
        Entity(phrase=p, start=caption.index(p), end=caption.index(p) + len(p), boxes=tuple(found))
        for p, found in boxes.items()
    ]
    return an_annotation(
        caption=caption, prompt_chars=len(prompt), entities=tuple(entities), **changes
    )


BRIEF, DETAILED = "An image of", "Describe this image in detail:"
ANSWERS = {
    "cats": answer(
        BRIEF,
        "a cat 🐈 and two dogs.",
        {
            "a cat 🐈": [a_box(0.015625, 0.25, 0.5, 0.984375, score=0.876)],
            "two dogs": [
                a_box(0.25, 0.5, 0.75, 0.765625, score=0.25),
                a_box(0.9375, 0.125, 1.0, 0.21875, score=1.0),
            ],
        },
    ),
    "sign": answer(
        BRIEF,
        "👩‍👩‍👧 under 𠜎 the sign, and nothing.",
        {"𠜎 the sign": [a_box(0.0, 0.0, 1.0, 1.0)], "nothing": []},
        issues=("truncated",),
    ),
    "bare": answer(BRIEF, "nothing to see.", {}),
    "given": answer(
        f"{BRIEF} the fire",
        "by a pot.",
        {
            "the fire": [a_box(0.5, 0.5, 0.75, 0.75, score=None, source="prompt")],
            "a pot": [
                a_box(0.125, 0.25, 0.375, 0.5, score=0.75),
                a_box(0.5, 0.25, 0.625, 0.5, score=None, source="prompt"),
            ],
        },
    ),
    "whole": answer(
        DETAILED,
        'The "image" shows a cup of tea.',
        {"a cup of tea": [a_box(0.25, 0.25, 0.75, 0.5)]},
        task="detailed",
    ),
}
META = {
    "url": "https://example.test/0.jpg",
    "clip_similarity_vitb32": 0.25,
    "clip_similarity_vitl14": 10**400,
    "name": "𝒜",
}
PHOTOS = {
    ("a", 0): photo(seed=1),
    ("a", 2): photo(orientation=6, seed=2),
    ("a", 3): photo(kind="PNG", seed=3),
    ("b", 0): photo(orientation=3, seed=4),
    ("b", 1): photo(kind="WEBP", orientation=8, seed=5),
}
SAID = {("a", 0): "cats", ("a", 2): "sign", ("a", 3): "bare", ("b", 0): "given", ("b", 1): "cats"}
SIDEWAYS = {("a", 2), ("b", 1)}
Place = tuple[str, int]  # the stem of a shard, an index


def write(folder: Path, **options: Any) -> StoredDataset:
    extension = {("a", 3): "png", ("b", 1): "webp"}
    members: dict[str, list[tuple[str, bytes]]] = {"a": [("1.jpg", b"broken")], "b": []}
    for (shard, index), data in PHOTOS.items():
        members[shard].append((f"{index}.{extension.get((shard, index), 'jpg')}", data))
    members["a"].append(("0.json", json.dumps(META).encode()))
    said = {
        shard: [[ANSWERS[SAID.get((shard, i), "bare")], ANSWERS["whole"]] for i in range(4)]
        for shard in ("a", "b")
    }
    return write_dataset(
        folder,
        {
            "a.tar": (sorted(members["a"]), said["a"]),
            "b.tar.gz": (members["b"], said["b"]),
            "c.tar": ([("0.jpg", picture())], None),
        },
        tasks=("brief", "detailed"),
        **options,
    )


def exported(job: StoredDataset, folder: Path, name: str, **options: Any) -> Coverage:
    chosen = ExportOptions(format=name, **{"task": ("brief",), **options})
    return export_dataset(job, InputStore(), open_output(str(folder)), chosen)


def truth() -> dict[Place, list[tuple[Box, str]]]:
    """Without the prompt's words, and without the box of the prompt's own phrase."""
    return {
        place: [
            (box, entity.phrase)
            for entity in ANSWERS[said].entities
            for box in entity.boxes
            if entity.phrase != "the fire"
        ]
        for place, said in SAID.items()
    }


def size(place: Place) -> tuple[int, int]:
    return (STORED[1], STORED[0]) if place in SIDEWAYS else STORED
