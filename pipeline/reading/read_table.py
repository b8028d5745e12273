"""The rows of a reader as an Arrow table, with one copy of the pixels."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from kosmos2_core.annotation import SAMPLE_ISSUES
from kosmos2_core.grounding.quality import size_issues
from kosmos2_core.images.decode import DecodedImage
from pipeline.dataset.originals import Answered
from pipeline.dataset.shards import Shard
from pipeline.formats.sample import Sample
from pipeline.schema import PIXELS_SIZE, READ, Original

_PIXELS = READ.get_field_index("pixels")
_WITHOUT_PIXELS = READ.remove(_PIXELS)


def sample_row(
    shard: Shard, sample: Sample, image: DecodedImage, sha256: bytes | None = None
) -> dict[str, Any]:
    """Return the row of a sample, for `read_table`; `sha256` is that of its bytes, if known."""
    described = _described(shard, sample, sha256 or sha256_of(sample), image)
    described["issues"] += [*image.issues, *size_issues(image.width, image.height)]
    return {"shard_id": shard.shard_id, "sample": described, "pixels": image.pixels}


def copy_row(
    shard: Shard, sample: Sample, sha256: bytes, original: Original, answered: Answered
) -> dict[str, Any]:
    """Return the row of a sample whose image is annotated elsewhere, for `read_table`."""
    answers = [
        {**answer, "issues": [issue for issue in answer["issues"] if issue not in SAMPLE_ISSUES]}
        for answer in answered.answers
    ]
    return {
        "shard_id": shard.shard_id,
        "sample": _described(shard, sample, sha256, answered),
        "answered": {"original": asdict(original), "answers": answers},
    }


def sha256_of(sample: Sample) -> bytes:
    return hashlib.sha256(sample.data).digest()


def _described(
    shard: Shard, sample: Sample, sha256: bytes, image: DecodedImage | Answered
) -> dict[str, Any]:
    return {
        "index": sample.index,
        "key": sample.key,
        "uri": sample.uri or shard.uri,
        "member": sample.member,
        "image_offset": sample.image_offset,
        "image_size": len(sample.data) if sample.image_offset is not None else None,
        "image_sha256": sha256,
        "width": image.width,
        "height": image.height,
        "exif_orientation": image.exif_orientation,
        "metadata": sample.metadata,
        "issues": list(sample.issues),
    }


def read_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Make a table of `schema.READ`.

    The `pixels` of a row are uint8 [3, 224, 224], C-contiguous; rows that are not samples have
    none.
    """
    table = pa.Table.from_pylist(rows, schema=_WITHOUT_PIXELS)
    column = _pixels([row.get("pixels") for row in rows])
    return table.add_column(_PIXELS, READ.field(_PIXELS), column)


def _pixels(images: Sequence[np.ndarray | None]) -> pa.Array:
    """Copy images into the buffer of a column. Arrow's own conversion copies them three times."""
    buffer = pa.allocate_buffer(len(images) * PIXELS_SIZE)
    values = np.frombuffer(buffer, np.uint8).reshape(len(images), PIXELS_SIZE)
    for value, image in zip(values, images, strict=True):
        value[:] = 0 if image is None else image.reshape(-1)
    is_valid = np.array([image is not None for image in images], bool)
    validity = pa.py_buffer(np.packbits(is_valid, bitorder="little"))
    return pa.Array.from_buffers(
        READ.field(_PIXELS).type, len(images), [None if is_valid.all() else validity, buffer]
    )
