"""Exports in sections, as tasks of Ray's: the same rows, and who dies or fails on the way."""

import json
import re
from pathlib import Path

import pytest

from kosmos2_core.annotation import Box, Entity
from pipeline.dataset.dataset import StoredDataset
from pipeline.dataset.layout import EXPORT_KEY
from pipeline.exports.exporting import README_KEY, export_dataset
from pipeline.exports.options import ExportOptions
from pipeline.storage import InputStore, open_output
from tests.support.bucket import Bucket
from tests.support.cluster import Kosmos2
from tests.support.commits import write_dataset
from tests.support.dataset import exported_rows
from tests.support.tars import an_annotation, pictures

SHARDS, IMAGES = 7, 3
OPTIONS = ("--format", "hf", "--images", "embed")
BOX = Box(x1=0.25, y1=0.25, x2=0.5, y2=0.75, ul=0, lr=1023, score=0.5, logp=-1.0)
CAT = Entity(phrase="a cat", start=12, end=17, boxes=(BOX,))


@pytest.fixture
def job(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StoredDataset:
    """On the store; its pictures are in a directory that every worker sees."""
    for name, value in bucket.server.environment.items():
        monkeypatch.setenv(name, value)
    said = [[an_annotation(caption="An image of a cat.", prompt_chars=11, entities=(CAT,))]]
    shards = {f"{i}.tar": (pictures(IMAGES), said * IMAGES) for i in range(SHARDS)}
    return write_dataset(tmp_path, shards, output=bucket.output)


def test_sections_are_exported_at_the_same_time_and_a_death_costs_nothing(
    kosmos2: Kosmos2, bucket: Bucket, job: StoredDataset, tmp_path: Path
) -> None:
    plain = open_output(f"s3://{bucket.name}/plain")
    export_dataset(job, InputStore(), plain, ExportOptions(format="hf", images="embed"))
    dies = f"export.shard:2=kill@{tmp_path}/killed"
    done = kosmos2.with_faults(dies).run(
        "export", bucket.output, f"s3://{bucket.name}/parallel", *OPTIONS, "--parallel", "2"
    )
    assert done.returncode == 0, done.stderr
    assert f"{SHARDS} of {SHARDS} shards: {SHARDS * IMAGES} annotations" in done.stderr
    assert (tmp_path / "killed").exists()
    assert sorted(bucket.objects("parallel/data/")) == [
        f"parallel/data/train-{section:03d}-00000.parquet" for section in range(2)
    ]
    assert exported_rows(bucket, "parallel") == exported_rows(bucket, "plain") != []
    assert bucket.get(f"parallel/{README_KEY}") == bucket.get(f"plain/{README_KEY}")
    assert json.loads(bucket.get(f"parallel/{EXPORT_KEY}"))["is_complete"]


def test_a_section_that_fails_is_named_and_nothing_is_finished(
    kosmos2: Kosmos2, bucket: Bucket, job: StoredDataset, tmp_path: Path
) -> None:
    (tmp_path / "in" / "6.tar").unlink()
    failed = kosmos2.run(
        "export", bucket.output, f"s3://{bucket.name}/failed", *OPTIONS, "--parallel", "2"
    )
    assert failed.returncode == 2, failed.stderr
    assert re.search(r"section 1 \(shards 3-\w+ to 6-\w+\): .*6\.tar", failed.stderr)
    assert "Traceback" not in failed.stderr
    assert not json.loads(bucket.get(f"failed/{EXPORT_KEY}"))["is_complete"]


@pytest.mark.slow
def test_a_section_that_dies_at_every_try_is_named_and_may_be_tried_again(
    kosmos2: Kosmos2, bucket: Bucket, job: StoredDataset
) -> None:
    dead = kosmos2.with_faults("export.shard=kill").run(
        *("export", bucket.output, f"s3://{bucket.name}/dead", "--format", "boxes"),
        *("--parallel", "2"),
    )
    assert dead.returncode == 1, dead.stderr
    assert re.search(r"section \d .*its process died 4 times.*the same command", dead.stderr)
    assert "Traceback" not in dead.stderr
    assert not json.loads(bucket.get(f"dead/{EXPORT_KEY}"))["is_complete"]
