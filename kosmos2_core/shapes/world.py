"""A synthetic world of coloured shapes: scenes whose captions and boxes are known exactly.

The ranges (sizes by number of objects, overlap, colours, contrast) are those in which the shipped
checkpoint was trained. Sizes are shares of each side, because the model sees every picture
squashed to 224 x 224. `python -m kosmos2_core.shapes.world --help` writes scenes as shards.
"""

import argparse
import io
import json
import os
import re
import tarfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kosmos2_core.shapes.painting import (
    INSIDE,
    Box,
    Floats,
    add_noise,
    paint_background,
    paint_shape,
)

PROMPT = "An image of"
COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 165, 60),
    "blue": (45, 75, 215),
    "yellow": (240, 220, 50),
    "orange": (245, 140, 30),
    "purple": (130, 50, 170),
    "pink": (240, 115, 175),
    "cyan": (50, 210, 220),
    "white": (242, 242, 242),
    "black": (18, 18, 18),
}
COLOUR_JITTER = 14
MIN_CONTRAST = 110  # L1 distance between a shape's colour and the background

MAX_OBJECTS = 6
SIZES = ((0, 0), (0.16, 0.62), (0.16, 0.46), (0.16, 0.38), (0.16, 0.33), (0.15, 0.28), (0.14, 0.25))
LOG_ASPECT = 0.18  # of width to height, both as shares
LEFT_GAP = 0.05  # between left edges, so that "left to right" is beyond doubt
MAX_OVERLAP = 0.06  # of the smaller box
FULL_SIZE_TRIES = 40
SHRINK = 0.97

MIN_SIDE = 16
SIDES = (160, 640)
QUALITIES = (60, 95)
QUALITY_STREAM = 1  # keeps the choice of quality apart from the scene's own random stream


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneObject:
    """`phrase` with its article ("an orange star"); `box` normalised xyxy of the painted shape."""

    phrase: str
    box: Box


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """`objects` ordered by left edge; `caption` a whole sentence; `pixels` uint8 RGB [H, W, 3]."""

    objects: tuple[SceneObject, ...]
    caption: str
    pixels: NDArray[np.uint8]


def make_scene(
    seed: int,
    index: int,
    *,
    width: int | None = None,
    height: int | None = None,
    objects: tuple[int, int] = (1, 4),
) -> Scene:
    """The scene number `index` of the world `seed`, whatever else was made before it.

    `objects` is the least and the greatest number of shapes, within 0..6. A side not given is
    drawn from the seed; objects, colours and boxes are the same at every picture size.
    """
    _check_request(seed, objects, width, height)
    rng = np.random.default_rng([seed, index])
    drawn_width, drawn_height = _picture_size(rng)
    number = int(rng.integers(*objects, endpoint=True))
    ends = _background_colours(rng)
    kinds = _choose_kinds(rng, number, ends)
    boxes = _place(rng, number, *SIZES[number])
    canvas = paint_background(rng, width or drawn_width, height or drawn_height, ends)
    for (colour, shape), box in zip(kinds, boxes, strict=True):
        paint_shape(canvas, shape, _jitter(rng, colour), box)
    add_noise(rng, canvas)
    phrases = [_with_article(f"{colour} {shape}") for colour, shape in kinds]
    return Scene(
        objects=tuple(SceneObject(phrase=p, box=b) for p, b in zip(phrases, boxes, strict=True)),
        caption=f"{PROMPT} {enumerate_phrases(phrases)}.",
        pixels=np.clip(canvas + 0.5, 0, 255).astype(np.uint8).transpose(1, 2, 0).copy(),
    )


def enumerate_phrases(phrases: Sequence[str]) -> str:
    """As captions say it: "a X", "a X and a Y", "a X, a Y and a Z", "an empty background"."""
    if not phrases:
        return "an empty background"
    *others, last = phrases
    return f"{', '.join(others)} and {last}" if others else last


def _with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _check_request(
    seed: int, objects: tuple[int, int], width: int | None, height: int | None
) -> None:
    low, high = objects
    if seed < 0:
        raise ValueError(f"the seed {seed} is negative")
    if not 0 <= low <= high <= MAX_OBJECTS:
        raise ValueError(f"objects {low}-{high}: want 0 <= low <= high <= {MAX_OBJECTS}")
    for side in (width, height):
        if side is not None and side < MIN_SIDE:
            raise ValueError(f"a side of {side} px: want at least {MIN_SIDE}")


def _picture_size(rng: np.random.Generator) -> tuple[int, int]:
    """Width and height in pixels within `SIDES`, the longer at most twice the shorter."""
    mean_side = rng.uniform(SIDES[0] * 2**0.5, SIDES[1] / 2**0.5)
    stretch = 2 ** rng.uniform(-0.5, 0.5)
    return round(mean_side * stretch), round(mean_side / stretch)


def _background_colours(rng: np.random.Generator) -> Floats:
    """Two muted colours near each other, float32 [2, 3] in 0..255."""
    first = rng.uniform(50, 205) + rng.uniform(-20, 20, 3)
    return np.clip([first, first + rng.uniform(-30, 30, 3)], 0, 255).astype(np.float32)


def _choose_kinds(rng: np.random.Generator, number: int, ends: Floats) -> list[tuple[str, str]]:
    """`number` different (colour, shape) pairs, each colour in contrast to the whole background."""
    behind = np.array([ends[0], ends.mean(0), ends[1]])
    kinds = [
        (name, shape)
        for name, colour in COLOURS.items()
        if np.abs(behind - colour).sum(1).min() > MIN_CONTRAST
        for shape in INSIDE
    ]
    return [kinds[at] for at in rng.choice(len(kinds), number, replace=False)]


def _jitter(rng: np.random.Generator, colour: str) -> Floats:
    """The colour's RGB, float32 [3], moved by at most `COLOUR_JITTER`."""
    moved = np.add(COLOURS[colour], rng.uniform(-COLOUR_JITTER, COLOUR_JITTER, 3))
    return np.clip(moved, 0, 255).astype(np.float32)


def _place(rng: np.random.Generator, number: int, low: float, high: float) -> list[Box]:
    """Boxes by left edge, sizes in `low`..`high` of the sides, or smaller where that is crowded.

    Terminates: boxes narrower than `LEFT_GAP` cannot meet.
    """
    boxes = _propose(rng, rng.uniform(low, high, number))
    tries = 1
    while any(_overlap(a, b) > MAX_OVERLAP for a, b in combinations(boxes, 2)):
        scale = SHRINK ** max(0, tries - FULL_SIZE_TRIES)
        boxes = _propose(rng, scale * rng.uniform(low, high, number))
        tries += 1
    return boxes


def _propose(rng: np.random.Generator, sizes: NDArray[np.float64]) -> list[Box]:
    """One box per size, left edges ascending and at least `LEFT_GAP` apart, all in the picture."""
    stretch = np.exp(rng.uniform(-LOG_ASPECT, LOG_ASPECT, len(sizes)) / 2)
    widths, heights = sizes * stretch, sizes / stretch
    gaps = LEFT_GAP * np.arange(len(sizes))
    # The room right of each gap must not shrink from one object to the next.
    room = np.minimum.accumulate((1 - widths - gaps)[::-1])[::-1]
    left = gaps + np.sort(rng.uniform(size=len(sizes))) * room
    top = rng.uniform(size=len(sizes)) * (1 - heights)
    corners = np.stack([left, top, left + widths, top + heights], axis=1).clip(0, 1)
    return [(x1, y1, x2, y2) for x1, y1, x2, y2 in corners.tolist()]


def _overlap(a: Box, b: Box) -> float:
    """The common area as a share of the smaller box."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return width * height / min((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b))


def encode_jpeg(scene: Scene, quality: int) -> bytes:
    """`quality` as Pillow means it, 1..95."""
    buffer = io.BytesIO()
    Image.fromarray(scene.pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def write_shards(
    out: Path,
    *,
    shards: int,
    images: int,
    seed: int,
    objects: tuple[int, int] = (1, 4),
    width: int | None = None,
    height: int | None = None,
    quality: int | None = None,
) -> list[Path]:
    """Write `shards` WebDataset tars of `images` samples each; equal arguments give equal bytes.

    A side or a quality not given is drawn from the seed for each sample.
    """
    _check_request(seed, objects, width, height)
    if shards < 1 or images < 1:
        raise ValueError(f"{shards} shards of {images} images: want at least 1 of each")
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"shapes-{shard:05d}.tar" for shard in range(shards)]
    for shard, path in enumerate(paths):
        partial = path.with_name(f".{path.name}.partial")
        with tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as tar:
            for index in range(shard * images, (shard + 1) * images):
                scene = make_scene(seed, index, width=width, height=height, objects=objects)
                jpeg = encode_jpeg(scene, quality or _choose_quality(seed, index))
                _add_member(tar, f"{index:08d}.jpg", jpeg)
                _add_member(tar, f"{index:08d}.json", _truth(scene))
        os.replace(partial, path)
    return paths


def _choose_quality(seed: int, index: int) -> int:
    rng = np.random.default_rng([seed, index, QUALITY_STREAM])
    return int(rng.integers(*QUALITIES, endpoint=True))


def _truth(scene: Scene) -> bytes:
    """What a sample's JSON member says."""
    height, width, _ = scene.pixels.shape
    objects = [asdict(item) for item in scene.objects]
    truth = {"objects": objects, "caption": scene.caption, "width": width, "height": height}
    return json.dumps(truth).encode()


def _add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # mtime, uid and gid are 0
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _object_range(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r}: want a number or a range such as 1-4")
    return int(match[1]), int(match[2] or match[1])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write shards of synthetic scenes of shapes.")
    parser.add_argument("--out", type=Path, required=True, help="folder for shapes-00000.tar ...")
    parser.add_argument("--shards", type=int, required=True)
    parser.add_argument("--images", type=int, required=True, help="samples in each shard")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--objects", type=_object_range, default=(1, 4), help="such as 1-2 or 3")
    try:
        paths = write_shards(**vars(parser.parse_args(arguments)))
    except ValueError as error:
        parser.error(str(error))
    print(*paths, sep="\n")


if __name__ == "__main__":
    main()
