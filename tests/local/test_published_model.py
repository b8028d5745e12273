"""A whole job with the published vocabulary: self-check, verification, all export formats."""

import json
from pathlib import Path

from kosmos2_core.shapes.world.shards import encode_jpeg, make_scene
from pipeline.dataset.dataset import open_dataset
from pipeline.dataset.layout import EXPORT_KEY
from pipeline.exports.exporting import export_dataset
from pipeline.exports.formats.registry import EXPORT_FORMATS
from pipeline.exports.options import ExportOptions
from pipeline.storage import InputStore, StorageOptions, open_output
from tests.support.bucket import Bucket
from tests.support.dataset import read
from tests.support.locally import LocalCommand
from tests.support.published import needs_published_processor, published_checkpoint
from tests.support.tars import tar

IMAGES = 6

pytestmark = needs_published_processor


def put_scenes(bucket: Bucket) -> None:
    members = [(f"{index}.jpg", encode_jpeg(make_scene(5, index), 90)) for index in range(IMAGES)]
    bucket.put("shards/scenes.tar", tar(members))


def test_the_published_vocabulary_goes_through_the_whole_job(
    bucket: Bucket, kosmos2: LocalCommand, tmp_path: Path
) -> None:
    put_scenes(bucket)
    (model := tmp_path / "model").mkdir()
    published_checkpoint(model)

    done = kosmos2.run(
        *("annotate", bucket.input, bucket.output, "--model", str(model)),
        *("--grammar", "strict", "--verify-boxes"),  # noise has no boxes otherwise
    )

    assert done.returncode == 0, done.stderr
    rows = read(bucket).to_pylist()
    assert len(rows) == IMAGES
    entities = [(row["caption"], entity) for row in rows for entity in row["entities"]]
    boxes = [box for _, entity in entities for box in entity["boxes"]]
    assert all(text[e["start"] : e["end"]] == e["phrase"] for text, e in entities)
    assert any(box["consistency"] is not None for box in boxes)

    verified = kosmos2.run("verify", bucket.output, "--input", bucket.input)
    assert verified.returncode == 0, verified.stdout

    dataset = open_dataset(bucket.output, StorageOptions())
    for name in EXPORT_FORMATS:
        folder = tmp_path / name
        options = ExportOptions(format=name)
        coverage = export_dataset(dataset, InputStore(), open_output(str(folder)), options)
        assert (coverage.annotations, coverage.boxes) == (IMAGES, len(boxes)), name
        assert json.loads((folder / EXPORT_KEY).read_text())["is_complete"], name
