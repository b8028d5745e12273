"""`kosmos2 bench decode`: large JPEGs, decoded exactly, fast, and by the Hugging Face processor."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from jobs.bench.images import image_processor, photograph, process_image
from jobs.bench.machine import BenchResult, cpu_s, load_average, one_thread
from jobs.terminal import DataTable
from kosmos2_core.annotator import Annotator
from kosmos2_core.comparison.machine import versions
from kosmos2_core.grounding.grid import RIGHT_IOU
from kosmos2_core.images.decode import DecodeMode, decode_image
from kosmos2_core.prompts.tasks import BRIEF
from kosmos2_core.shapes.evaluation.scoring import judge
from kosmos2_core.shapes.world.ranges import WIDE_WORLD
from kosmos2_core.shapes.world.scenes import Scene, make_scene
from kosmos2_core.shapes.world.shards import encode_jpeg

SIZES = ((816, 612), (1632, 1224), (4000, 3000), (8000, 6000))
_SCENE = (2400, 1800)  # is decoded at a quarter of its sides
_SEED, _QUALITY = 9, 90
_NO_PIXELS = np.empty((0, 0, 3), np.uint8)  # a hundred large scenes take 1.3 GB


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeCost:
    """CPU time on one thread; `speed`: exact / fast. `mean_diff`, `max_diff`: levels of 0..255."""

    width: int
    height: int
    reference_ms: float
    exact_ms: float
    fast_ms: float
    speed: float
    mean_diff: float
    max_diff: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeAgreement:
    """Objects with the right name and a box of IoU >= 0.5, by mode; captions alike in both."""

    scenes: int
    objects: int
    right_exact: int
    right_fast: int
    same_captions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeBench(BenchResult):
    costs: tuple[DecodeCost, ...]
    agreement: DecodeAgreement
    rounds: int
    versions: dict[str, str]

    def page(self) -> Iterator[str | DataTable]:
        table = DataTable(title="JPEG to 224x224 pixels, CPU ms per image")
        for heading in ("size", "Hugging Face", "exact", "fast", "exact / fast", "difference"):
            table.add_column(heading, justify="right")
        for cost in self.costs:
            table.add_row(
                f"{cost.width}x{cost.height}",
                *(f"{ms:.1f}" for ms in (cost.reference_ms, cost.exact_ms, cost.fast_ms)),
                f"{cost.speed:.2f}x",
                f"{cost.mean_diff:.2f} mean, {cost.max_diff} max",
            )
        yield table
        found = self.agreement
        yield (
            f"{found.scenes} drawn scenes of {_SCENE[0]}x{_SCENE[1]}: of {found.objects} objects, "
            f"{found.right_exact} are right with exact, {found.right_fast} with fast; "
            f"{found.same_captions} captions are the same"
        )
        yield self.conditions


def bench_decode(
    *, scenes: int, rounds: int, sizes: Sequence[tuple[int, int]] | None = None
) -> DecodeBench:
    """Measure all sizes, then let the embedded model describe large scenes in both modes."""
    load_before, processor = load_average(), image_processor()
    with one_thread():
        costs = tuple(_cost(width, height, processor, rounds) for width, height in sizes or SIZES)
    return DecodeBench(
        costs=costs,
        agreement=_agreement(scenes),
        rounds=rounds,
        load_before=load_before,
        versions=versions("torch", "pillow", "simplejpeg", "transformers"),
    )


def _cost(width: int, height: int, processor: Any, rounds: int) -> DecodeCost:
    data = photograph(_SEED, width, height)
    sides = (
        partial(process_image, processor, data),
        partial(decode_image, data),
        partial(decode_image, data, decode="fast"),
    )
    for side in sides:  # the first round is not counted
        side()
    found = [[cpu_s(side) for side in sides] for _ in range(rounds)]
    reference, exact, fast = (
        statistics.median(column) * 1000 for column in zip(*found, strict=True)
    )
    difference = np.abs(_pixels(data, "exact").astype(int) - _pixels(data, "fast"))
    return DecodeCost(
        width=width,
        height=height,
        reference_ms=reference,
        exact_ms=exact,
        fast_ms=fast,
        speed=statistics.median(e / f for _, e, f in found),
        mean_diff=float(difference.mean()),
        max_diff=int(difference.max()),
    )


def _agreement(scenes: int) -> DecodeAgreement:
    annotator = Annotator.from_pretrained("shapes", device="cpu")
    drawn: list[Scene] = []
    pixels: dict[DecodeMode, list[np.ndarray]] = {"exact": [], "fast": []}
    for index in range(scenes):
        scene = make_scene(_SEED, index, width=_SCENE[0], height=_SCENE[1], world=WIDE_WORLD)
        data = encode_jpeg(scene, _QUALITY)
        drawn.append(replace(scene, pixels=_NO_PIXELS))
        for mode, decoded in pixels.items():
            decoded.append(_pixels(data, mode))
    exact, fast = (
        [annotation for (annotation,) in annotator.annotate_pixels(np.stack(decoded), [BRIEF])]
        for decoded in pixels.values()
    )
    return DecodeAgreement(
        scenes=scenes,
        objects=sum(len(scene.objects) for scene in drawn),
        right_exact=_right(drawn, exact),
        right_fast=_right(drawn, fast),
        same_captions=sum(a.caption == b.caption for a, b in zip(exact, fast, strict=True)),
    )


def _right(scenes: list[Scene], answers: list[Any]) -> int:
    return sum(
        judged.iou >= RIGHT_IOU
        for scene, answer in zip(scenes, answers, strict=True)
        for judged in judge(scene, answer.entities)
    )


def _pixels(data: bytes, mode: DecodeMode) -> np.ndarray:
    return decode_image(data, decode=mode).pixels
