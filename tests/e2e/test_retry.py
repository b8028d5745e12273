"""`kosmos2 retry` and `verify` on a real S3 server and a real Ray cluster."""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kosmos2_core.shapes.world import write_shards
from pipeline.files import file_metadata, parquet_bytes
from pipeline.schema import REJECTION
from tests.e2e.cluster import Kosmos2
from tests.e2e.conftest import Bucket
from tests.e2e.dataset import file_metadata as metadata_of
from tests.e2e.dataset import named_rejects
from tests.tars import tar

IMAGES = 12
REJECTED = (3, 7)


def test_rejected_samples_get_their_annotations(
    bucket: Bucket, kosmos2: Kosmos2, tmp_path: Path
) -> None:
    """Against what the model says of a shard that never had a reject: in float32 it is the same."""
    write_shards(tmp_path, shards=2, images=IMAGES, seed=5)
    bucket.put_shards(tmp_path)
    done = kosmos2.run("annotate", bucket.input, bucket.output)
    assert done.returncode == 0, done.stderr
    whole = bucket.objects("out/annotations/")
    first, other = sorted(whole)
    before = pq.read_table(io.BytesIO(bucket.get(first)))
    _reject(bucket, first, REJECTED)
    former = metadata_of(bucket, "shapes-00000")

    again = kosmos2.run("retry", bucket.output, "--samples")

    assert again.returncode == 0, again.stderr
    assert pq.read_table(io.BytesIO(bucket.get(first))).equals(before)
    assert bucket.objects("out/annotations/")[other] == whole[other]
    assert metadata_of(bucket, "shapes-00000")["kosmos2.replaces"] == former["kosmos2.commit_id"]
    assert json.loads(bucket.get("out/_SUCCESS.json"))["annotated"] == 2 * IMAGES
    status = json.loads(kosmos2.run("status", bucket.output, "--json").stdout)
    assert (status["totals"]["annotated"], status["totals"]["rejected"]) == (2 * IMAGES, 0)


def test_a_shard_that_was_given_up_is_tried_again(bucket: Bucket, kosmos2: Kosmos2) -> None:
    bucket.put("shards/bad.tar", tar([(f"{number:04d}.jpg", b"none") for number in range(50)]))
    assert kosmos2.run("annotate", bucket.input, bucket.output).returncode == 3
    (failed,) = bucket.objects("out/failed/")
    bucket.put(failed, json.dumps({**json.loads(bucket.get(failed)), "attempts": 3}).encode())

    done = kosmos2.run("retry", bucket.output, "--max-reject-rate", "1")

    assert done.returncode == 0, done.stderr
    assert bucket.objects("out/failed/") == {}
    assert named_rejects(bucket).num_rows == 50
    assert json.loads(bucket.get("out/_SUCCESS.json"))["shards"] == 1


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
