"""Tables of a reader equal those that Arrow makes of the same rows."""

from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pytest

from pipeline.reading.read_table import read_table
from pipeline.schema import READ, ShardEnd

SAMPLE_ROW = {
    "index": 3,
    "key": "a",
    "uri": "s3://b/a.tar",
    "member": "a.jpg",
    "image_offset": 512,
    "image_size": 7,
    "image_sha256": bytes(32),
    "width": 1,
    "height": 2,
    "exif_orientation": 1,
    "metadata": None,
    "issues": ["tiny_image"],
}


def sample(seed: int) -> dict:
    pixels = np.random.default_rng(seed).integers(0, 256, (3, 224, 224), np.uint8)
    return {"shard_id": "s", "sample": SAMPLE_ROW, "pixels": pixels}


END = {"shard_id": "s", "end": asdict(ShardEnd(samples=1))}


@pytest.mark.parametrize(
    "rows",
    [[], [sample(1)], [END], [sample(i) for i in range(9)], [END, sample(1), sample(2), END] * 3],
    ids=["none", "a sample", "an end", "samples", "both"],
)
def test_a_table_is_the_one_that_arrow_makes(rows: list[dict]) -> None:
    found = read_table(rows)
    found.validate(full=True)
    encoded = [{**row, "pixels": row["pixels"].tobytes()} if "pixels" in row else row
               for row in rows]  # fmt: skip
    assert found.equals(pa.Table.from_pylist(encoded, schema=READ))
