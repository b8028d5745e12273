"""`kosmos2 bench images`: encoded bytes -> 224x224 pixels, against the Hugging Face processor."""

import io
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image

from jobs.bench.machine import BenchResult, cpu_s, load_average, one_thread
from kosmos2_core.checkpoint.files import SHAPES_DIRECTORY
from kosmos2_core.comparison.machine import machine, one_torch_thread, versions
from kosmos2_core.images.decode import decode_image

WIDTH, HEIGHT, QUALITY = 1024, 768, 85
_OCTAVES = (4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageBench(BenchResult):
    """`ratio`: CPU time of the reference / ours, one thread, the median of interleaved rounds.

    `decoder_ms`: the JPEG library's part of `ours_ms`. `max_diff`: levels of 0..255.
    `two_threads`: images per second with two threads / with one.
    """

    ratio: float
    max_diff: int
    two_threads: float
    reference_ms: float
    ours_ms: float
    decoder_ms: float
    images: int
    rounds: int
    machine: str = field(default_factory=machine)
    versions: dict[str, str]

    def page(self) -> Iterator[str]:
        yield (
            f"{WIDTH}x{HEIGHT} JPEG to pixels, CPU time per image: {self.ratio:.2f}x of the "
            f"reference ({self.reference_ms:.2f} ms -> {self.ours_ms:.2f} ms, "
            f"{self.decoder_ms:.2f} of it in the JPEG library)"
        )
        yield (
            f"largest difference {self.max_diff}/255, two threads {self.two_threads:.2f}x of one"
        )
        yield self.conditions


def bench_images(*, images: int, rounds: int) -> ImageBench:
    data = [photograph(seed, WIDTH, HEIGHT) for seed in range(images)]
    return _measure(data, image_processor(), rounds)


def _measure(data: Sequence[bytes], processor: Any, rounds: int) -> ImageBench:
    def reference() -> None:
        for one in data:
            process_image(processor, one)

    def ours() -> None:
        for one in data:
            decode_image(one)

    def decoder() -> None:
        for one in data:
            simplejpeg.decode_jpeg(one, "RGB")

    load_before = load_average()
    with one_thread():
        reference()  # the first round of each is not counted
        ours()
        found = [(cpu_s(reference), cpu_s(ours), cpu_s(decoder)) for _ in range(rounds)]
    theirs, mine, floor = zip(*found, strict=True)
    per_image = 1000 / len(data)
    return ImageBench(
        ratio=statistics.median(t / m for t, m in zip(theirs, mine, strict=True)),
        max_diff=max(_difference(one, processor) for one in data),
        two_threads=statistics.median(_speed_up(data) for _ in range(rounds)),
        reference_ms=statistics.median(theirs) * per_image,
        ours_ms=statistics.median(mine) * per_image,
        decoder_ms=statistics.median(floor) * per_image,
        images=len(data),
        rounds=rounds,
        load_before=load_before,
        versions=versions("torch", "pillow", "simplejpeg", "transformers"),
    )


def _speed_up(data: Sequence[bytes]) -> float:
    walls = []
    for threads in (1, 2):
        with one_torch_thread(), ThreadPoolExecutor(threads) as pool:
            start = time.perf_counter()
            list(pool.map(decode_image, data))
            walls.append(time.perf_counter() - start)
    return walls[0] / walls[1]


def _difference(data: bytes, processor: Any) -> int:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    theirs = processor(images=image, do_rescale=False, do_normalize=False, return_tensors="np")
    return int(np.abs(theirs["pixel_values"][0].astype(int) - decode_image(data).pixels).max())


def process_image(processor: Any, data: bytes) -> None:
    """Do what users of Hugging Face's processor do with an image file."""
    processor(images=Image.open(io.BytesIO(data)).convert("RGB"), return_tensors="pt")


def image_processor() -> Any:
    """Return the Hugging Face processor that images are compared with."""
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(SHAPES_DIRECTORY, local_files_only=True).image_processor


def photograph(seed: int, width: int, height: int) -> bytes:
    """Return a JPEG of noise with the spectrum of a photograph, 1/frequency, and grain."""
    rng = np.random.default_rng(seed)
    image = rng.normal(0, 0.03, (height, width, 3))
    for octave in _OCTAVES:
        coarse = rng.normal(0, 1 / octave, (max(octave * 3 // 4, 1), octave, 3))
        size = (width, height)
        image += np.stack(
            [
                np.asarray(Image.fromarray(coarse[..., c]).resize(size, Image.Resampling.BICUBIC))
                for c in range(3)
            ],
            axis=-1,
        )
    levels = np.clip(127 + 127 * image / (3 * image.std()), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
