"""A reader that makes tables of samples without reading, decoding or copying anything."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

import numpy as np
import pyarrow as pa

from pipeline.concurrency import SharedCounter
from pipeline.dataset.shards import Shard
from pipeline.schema import PIXELS_SIZE, READ, SAMPLE, ShardEnd
from pipeline.spec.job import JobSpec

_GROUP = 2048  # samples per table


@dataclass(frozen=True, slots=True, kw_only=True)
class LightRead:
    """Makes, in a task, a reader that finds `images` black images in each shard."""

    images: int

    def __call__(self, spec: JobSpec) -> "LightReader":
        return LightReader(images=self.images)


@dataclass(frozen=True, slots=True, kw_only=True)
class LightReader:
    """Stands in for a `ShardReader`."""

    images: int
    decoded: SharedCounter = field(default_factory=SharedCounter)
    decode_s: SharedCounter = field(default_factory=SharedCounter)

    def read(self, shard: Shard) -> Iterator[pa.Table]:
        """Yield tables of `schema.READ`, the last one with the end row alone."""
        for start in range(0, self.images, _GROUP):
            yield _samples(shard, start, min(_GROUP, self.images - start))
        end = {"shard_id": shard.shard_id, "end": asdict(ShardEnd(samples=self.images))}
        yield pa.Table.from_pylist([end], schema=READ)

    def read_isolated(self, shard: Shard) -> Iterator[pa.Table]:
        return self.read(shard)

    def give_up(self, shard: Shard, message: str) -> pa.Table:
        raise AssertionError(message)


def _samples(shard: Shard, start: int, count: int) -> pa.Table:
    same = {
        "key": "000000",
        "uri": shard.uri,
        "member": "000000.jpg",
        "image_offset": 512,
        "image_size": 100_000,
        "image_sha256": bytes(32),
        "width": 640,
        "height": 480,
        "exif_orientation": 1,
        "metadata": None,
        "issues": [],
    }
    index = pa.array(np.arange(start, start + count, dtype=np.int32))
    columns = [
        index
        if column.name == "index"
        else pa.repeat(pa.scalar(same[column.name], column.type), count)
        for column in SAMPLE
    ]
    pixels = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(PIXELS_SIZE), count, [None, pa.py_buffer(bytes(count * PIXELS_SIZE))]
    )
    content = {
        "shard_id": pa.repeat(pa.scalar(shard.shard_id), count),
        "sample": pa.StructArray.from_arrays(columns, fields=list(SAMPLE)),
        "pixels": pixels,
    }
    return pa.Table.from_arrays(
        [content.get(column.name, pa.nulls(count, column.type)) for column in READ], schema=READ
    )
