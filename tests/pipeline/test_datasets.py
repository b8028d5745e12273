"""A dataset as Python sees it."""

import json
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipeline import Dataset
from pipeline.errors import CorruptOutput, ObjectMissing, SpecError
from pipeline.exit_codes import ExitCode
from pipeline.schema import ANNOTATION, REJECTION
from pipeline.verification.findings import Defect
from tests.support.commits import write_dataset
from tests.support.tars import an_annotation, pictures

SAID = [an_annotation(), an_annotation("detailed", entities=())]
TASKS = ("brief", "detailed")


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Two shards of three are committed; an image of the second is broken."""
    members = {"a": pictures(2), "b": [*pictures(2), ("x.jpg", b"no image")], "c": pictures(1)}
    archives = {
        f"{name}.tar": (files, None if name == "c" else [SAID] * 3)
        for name, files in members.items()
    }
    write_dataset(tmp_path, archives, tasks=TASKS)
    return Dataset.open(str(tmp_path / "out"))


def test_rows_are_those_of_committed_shards_in_the_order_of_the_plan(
    dataset: Dataset, tmp_path: Path
) -> None:
    stray = tmp_path / "out" / "annotations" / "stray-0123.parquet"
    pq.write_table(ANNOTATION.empty_table(), stray)
    table = dataset.rows().to_table()
    assert table.schema.equals(dataset.schema)
    assert "".join(name[0] for name in table["shard_id"].to_pylist()) == "aaaabbbb"
    assert table["task"].to_pylist() == [*TASKS] * 4


def test_columns_and_conditions_choose(dataset: Dataset) -> None:
    some = dataset.rows(columns=["caption", "key"]).to_table()
    assert (some.column_names, some.num_rows) == (["caption", "key"], 8)
    where = pc.field("task") == "brief"
    brief = dataset.rows(columns=["key", "entities"], where=where).to_table()
    assert brief.column_names == ["key", "entities"]
    assert [row["entities"][0]["phrase"] for row in brief.to_pylist()] == ["a cat"] * 4
    assert dataset.rows(where=where).head(3).num_rows == 3
    with pytest.raises(KeyError, match="no column 'nothing'"):
        dataset.rows(columns=["nothing"])


def test_rows_that_are_damaged_say_so(dataset: Dataset, tmp_path: Path) -> None:
    next((tmp_path / "out" / "annotations").glob("b-*")).write_bytes(b"no Parquet")
    with pytest.raises(CorruptOutput, match="is damaged"):
        dataset.rows().to_table()


def test_rejects_are_those_that_commits_name(dataset: Dataset) -> None:
    found = dataset.rejects()
    assert found.schema.equals(REJECTION)
    assert [(row["key"], row["error_type"], row["task"]) for row in found.to_pylist()] == [
        ("x", "unknown_format", task) for task in TASKS
    ]


def test_it_tells_how_far_it_is_and_what_is_wrong(dataset: Dataset, tmp_path: Path) -> None:
    status = dataset.status()
    assert (status.shards_planned, status.shards_left, status.totals.annotated) == (3, 1, 8)
    assert dataset.verify().findings == ()
    next((tmp_path / "out" / "annotations").glob("b-*")).write_bytes(b"no Parquet")
    assert Defect.COMMIT_DAMAGED in {finding.defect for finding in dataset.verify().findings}


def test_it_is_filtered_and_exported(dataset: Dataset, tmp_path: Path) -> None:
    derived = dataset.filter(str(tmp_path / "good"), where=["box_count > 0"])
    assert (derived.shards_new, derived.account.after.annotations) == (2, 4)
    good = Dataset.open(str(tmp_path / "good"))
    coverage = good.export(str(tmp_path / "coco"), format="coco", task=["brief"])
    assert (coverage.annotations, coverage.boxes) == (4, 4)
    assert json.loads((tmp_path / "coco" / "_EXPORT.json").read_text())["is_complete"]
    with pytest.raises(SpecError, match="is not empty"):
        dataset.filter(str(tmp_path / "in"), min_score=0.5)


def test_copies_go_and_progress_is_told(dataset: Dataset, tmp_path: Path) -> None:
    """The shards hold the same images."""
    told: list[tuple[int, int]] = []
    derived = dataset.dedup(
        str(tmp_path / "unique"), on_progress=lambda done, of: told.append((done, of))
    )
    assert (derived.account.before.annotations, derived.account.after.annotations) == (8, 4)
    assert told[-1] == (2, 2)
    exported: list[int] = []
    dataset.export(
        str(tmp_path / "hf"), format="hf", on_progress=lambda so_far: exported.append(so_far.boxes)
    )
    assert exported == [2, 4, 4]  # after each shard, and at the end


def test_defects_are_mended(dataset: Dataset, tmp_path: Path) -> None:
    next((tmp_path / "out" / "annotations").glob("b-*")).write_bytes(b"no Parquet")
    report = dataset.verify(fix=True)
    assert Defect.COMMIT_DAMAGED in {finding.defect for finding in report.mended}
    assert dataset.verify().findings == ()
    assert dataset.status().shards_left == 2
    changed = dataset.verify(input=str(tmp_path / "in"))
    assert changed.inputs_new == 0


def test_there_is_nothing_to_try_again(dataset: Dataset) -> None:
    verdict = dataset.retry()
    assert (verdict.exit_code, verdict.failures) == (ExitCode.DONE, ())
    verdict.raise_for_failures()


def test_what_is_no_dataset_is_said(tmp_path: Path) -> None:
    with pytest.raises(ObjectMissing, match="holds no dataset"):
        Dataset.open(str(tmp_path))
