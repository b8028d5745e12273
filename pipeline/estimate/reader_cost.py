"""The cost of reading an image, by part."""

import time
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

from kosmos2_core.errors import ImageError
from kosmos2_core.images.decode import DecodeMode, ExifPolicy, read_raster, to_square
from pipeline.dataset.shards import Shard
from pipeline.formats.sample import BrokenArchive, Sample
from pipeline.reading.read_table import read_table, sample_row
from pipeline.reading.sample_reader import SampleReader
from pipeline.reading.shard_reader import GROUP_SIZE


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderCost:
    """CPU milliseconds of a reader per image.

    `fetch_ms`: get the encoded image out of the store and its archive. `decode_ms`: to pixels of
    its own size. `resize_ms`: to 224x224. `table_ms`: hash, row and Arrow table.
    """

    fetch_ms: float
    decode_ms: float
    resize_ms: float
    table_ms: float

    @property
    def total_ms(self) -> float:
        return self.fetch_ms + self.decode_ms + self.resize_ms + self.table_ms


def reader_cost(
    samples: SampleReader,
    shards: Iterable[Shard],
    *,
    images: int,
    exif: ExifPolicy = "apply",
    decode: DecodeMode = "exact",
) -> ReaderCost | None:
    """Read up to `images` images of each shard in this thread, and measure the parts.

    Fetching is what the process did beside the other parts, in all of its threads: nothing else
    may run meanwhile. Returns None if no image was found. Raises StorageError.
    """
    meter = _Meter(exif, decode)
    started = time.process_time()
    for shard in shards:
        meter.read(samples, shard, images)
    spent_s = time.process_time() - started
    if not meter.images:
        return None
    per_image = 1000 / meter.images
    others_s = meter.decode_s + meter.resize_s + meter.table_s
    return ReaderCost(
        fetch_ms=max(spent_s - others_s, 0.0) * per_image,
        decode_ms=meter.decode_s * per_image,
        resize_ms=meter.resize_s * per_image,
        table_ms=meter.table_s * per_image,
    )


class _Meter:
    """The sums of the parts, in seconds of this thread."""

    def __init__(self, exif: ExifPolicy, decode: DecodeMode) -> None:
        self._exif = exif
        self._decode = decode
        self.images = 0
        self.decode_s = self.resize_s = self.table_s = 0.0

    def read(self, samples: SampleReader, shard: Shard, images: int) -> None:
        rows: list[dict[str, Any]] = []
        # A reader would reject what follows the damage.
        with closing(samples.read(shard)) as found, suppress(BrokenArchive):
            for each in islice(found, images):
                if isinstance(each, Sample):
                    self._add(shard, each, rows)
        self._make_table(rows)

    def _add(self, shard: Shard, sample: Sample, rows: list[dict[str, Any]]) -> None:
        self.images += 1
        started = time.thread_time()
        try:
            raster = read_raster(sample.data, decode=self._decode)
        except ImageError:
            return
        finally:
            decoded = time.thread_time()
            self.decode_s += decoded - started
        image = to_square(raster, exif=self._exif)
        resized = time.thread_time()
        self.resize_s += resized - decoded
        rows.append(sample_row(shard, sample, image))
        self.table_s += time.thread_time() - resized
        if len(rows) == GROUP_SIZE:
            self._make_table(rows)

    def _make_table(self, rows: list[dict[str, Any]]) -> None:
        started = time.thread_time()
        read_table(rows)
        rows.clear()
        self.table_s += time.thread_time() - started
