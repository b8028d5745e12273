"""Reading a finished dataset as a user would: pyarrow and the standard library alone."""

import io
import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from kosmos2_core.shapes.evaluation.scoring import iou
from tests.support.bucket import JobBucket


def read(bucket: JobBucket, folder: str = "annotations") -> pa.Table:
    keys = bucket.objects(f"out/{folder}/")
    return pa.concat_tables(pq.read_table(io.BytesIO(bucket.get(key))) for key in keys)


def file_metadata(bucket: JobBucket, stem: str) -> dict[str, str]:
    """The Parquet key-value metadata of the one annotations file whose name starts with `stem`."""
    (key,) = bucket.objects(f"out/annotations/{stem}")
    found = pq.read_metadata(io.BytesIO(bucket.get(key))).metadata
    return {name.decode(): value.decode() for name, value in found.items()}


def named_rejects(bucket: JobBucket) -> pa.Table:
    """The rows of the rejects files that a commit names; others do not count."""
    keys = [
        name for key in bucket.objects("out/annotations/") if (name := _rejects_of(bucket.get(key)))
    ]
    return pa.concat_tables(pq.read_table(io.BytesIO(bucket.get(f"out/{key}"))) for key in keys)


def _rejects_of(data: bytes) -> str:
    return pq.read_metadata(io.BytesIO(data)).metadata[b"kosmos2.rejects"].decode()


def primary_keys(*tables: pa.Table) -> Counter[tuple[str, int, str]]:
    return Counter(
        key
        for table in tables
        for key in zip(
            table["shard_id"].to_pylist(),
            table["index"].to_pylist(),
            table["task"].to_pylist(),
            strict=True,
        )
    )


def share_of_objects_right(rows: Iterable[dict[str, Any]]) -> float:
    """Of the objects in the scenes: named rightly, with a box of IoU >= 0.5; 0 of none."""
    found = [
        any(entity["phrase"] == truth["phrase"] and _is_on(entity, truth) for entity in entities)
        for row in rows
        for entities in [row["entities"]]
        for truth in json.loads(row["metadata"])["objects"]
    ]
    return sum(found) / max(len(found), 1)


def _is_on(entity: dict[str, Any], truth: dict[str, Any]) -> bool:
    boxes = [(b["x1"], b["y1"], b["x2"], b["y2"]) for b in entity["boxes"]]
    return any(iou(box, tuple(truth["box"])) >= 0.5 for box in boxes)


def exported_rows(bucket: JobBucket, folder: str) -> list[dict[str, object]]:
    keys = sorted(bucket.objects(f"{folder}/data/"))
    return [row for key in keys for row in pq.read_table(io.BytesIO(bucket.get(key))).to_pylist()]
