"""`kosmos2 retry --samples`."""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kosmos2_core.shapes.world.shards import write_shards
from pipeline.parquet import file_metadata, parquet_bytes
from pipeline.schema import REJECTION
from tests.support.bucket import FEW_OBJECTS, SEED, Bucket
from tests.support.dataset import file_metadata as metadata_of
from tests.support.locally import LocalCommand

SHARDS, IMAGES, REJECTED = 2, 12, (3, 7)


def test_rejected_samples_get_their_annotations(
    bucket: Bucket, kosmos2: LocalCommand, tmp_path: Path
) -> None:
    """Against what the model said before anything was rejected: in float32 it is the same."""
    write_shards(tmp_path, shards=SHARDS, images=IMAGES, seed=SEED, objects=FEW_OBJECTS)
    bucket.put_shards(tmp_path)
    done = kosmos2.run("annotate", bucket.input, bucket.output)
    assert done.returncode == 0, done.stderr
    whole = bucket.objects("out/annotations/")
    first, *others = sorted(whole)
    before = pq.read_table(io.BytesIO(bucket.get(first)))
    _reject(bucket, first, REJECTED)
    former = metadata_of(bucket, "shapes-00000")

    again = kosmos2.run("retry", bucket.output, "--samples")

    assert again.returncode == 0, again.stderr
    assert pq.read_table(io.BytesIO(bucket.get(first))).equals(before)
    after = bucket.objects("out/annotations/")
    assert {key: after[key] for key in others} == {key: whole[key] for key in others}
    assert metadata_of(bucket, "shapes-00000")["kosmos2.replaces"] == former["kosmos2.commit_id"]
    assert json.loads(bucket.get("out/_SUCCESS.json"))["annotated"] == SHARDS * IMAGES
    status = json.loads(kosmos2.run("status", bucket.output, "--json").stdout)
    totals = status["totals"]
    assert (totals["annotated"], totals["rejected"]) == (SHARDS * IMAGES, 0)


def _reject(bucket: Bucket, key: str, indices: tuple[int, ...]) -> None:
    """As if the model had failed on those samples when the shard was committed."""
    data = bucket.get(key)
    table = pq.read_table(io.BytesIO(data)).replace_schema_metadata(None)
    chosen = pc.is_in(table["index"], pa.array(indices, pa.int32()))
    reason = {"stage": "annotate", "error_type": "x", "message": "", "retriable": True}
    rejects = [
        {name: row.get(name) for name in REJECTION.names} | reason
        for row in table.filter(chosen).to_pylist()
    ]
    name = f"rejected/{Path(key).stem}-{'0' * 12}.parquet"
    metadata: dict[str, Any] = file_metadata(data)
    counts = {"annotated": str(IMAGES - len(indices)), "rejected": str(len(indices))}
    rejects_data = parquet_bytes(pa.Table.from_pylist(rejects, schema=REJECTION), metadata)
    bucket.put(f"out/{name}", rejects_data)
    kept = table.filter(pc.invert(chosen))
    bucket.put(key, parquet_bytes(kept, {**metadata, **counts, "rejects": name}))
    for summary in bucket.objects("out/ledger/"):
        bucket.delete(summary)
