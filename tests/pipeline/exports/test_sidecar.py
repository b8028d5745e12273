"""Sidecar files, joined with their input by webdataset, pyarrow and DuckDB."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.dataset.dataset import StoredDataset, open_dataset
from pipeline.errors import SpecError
from pipeline.exports.exporting import export_dataset
from pipeline.exports.options import ExportOptions
from pipeline.storage import InputStore, StorageOptions, open_output
from tests.support.commits import dataset_of, write_dataset
from tests.support.export_contract import Boxes, ExportContract, Found, sidecar_rows
from tests.support.export_dataset import exported
from tests.support.tars import Member, an_annotation, picture

BROKEN = 4  # index of the sample that has no image


class TestSidecar(ExportContract):
    name = "sidecar"

    def read(self, folder: Path) -> Boxes:
        return {
            (path.name.partition(".")[0], row["index"]): [
                Found(
                    box=tuple(box[corner] for corner in ("x1", "y1", "x2", "y2")),
                    phrase=row["brief"]["caption"][entity["start"] : entity["end"]],
                    score=box["score"],
                )
                for entity in row["brief"]["entities"]
                for box in entity["boxes"]
            ]
            for path in (folder / "data").iterdir()
            for row in sidecar_rows(path)
            if row["brief"]
        }


# ---- tars


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tars with fields of their own; a sample of the first one has a broken image."""
    folder = tmp_path_factory.mktemp("tars")

    def members(first: int) -> Iterator[Member]:
        for number in range(first, first + 6):
            data = picture(number) if number != BROKEN else b"broken"
            yield f"sub.d/{number:03d}.jpg", data
            yield f"sub.d/{number:03d}.json", json.dumps({"number": number}).encode()

    answers = [[an_annotation()]] * 6
    archives = {"x.tar": (list(members(0)), answers), "y.tar": (list(members(6)), answers)}
    job = write_dataset(folder, archives)
    exported(job, folder / "side", "sidecar")
    return folder


# The library leaves closing its files to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", ["x", "y"])
def test_webdataset_joins_a_tar_with_its_sidecar(tars: Path, name: str) -> None:
    import webdataset

    def read(path: Path) -> Any:
        return webdataset.WebDataset(str(path), shardshuffle=False)

    def joined() -> Iterator[dict[str, Any]]:
        both = read(tars / "in" / f"{name}.tar"), read(tars / "side/data" / f"{name}.ground.tar")
        for sample, more in zip(*both, strict=True):
            assert sample["__key__"] == more["__key__"]
            yield sample | {k: v for k, v in more.items() if not k.startswith("_")}

    found = list(joined())
    assert len(found) == 6
    for sample in found:
        own, ground = (json.loads(sample[field]) for field in ("json", "ground.json"))
        assert sample["__key__"] == f"sub.d/{own['number']:03d}"
        assert sample["jpg"] == (picture(own["number"]) if own["number"] != BROKEN else b"broken")
        if own["number"] == BROKEN:
            assert ground["brief"] is None
            assert [reason["task"] for reason in ground["rejected"]] == ["brief"]
        else:
            assert ground["brief"]["caption"] == "a cat."
            assert ground["rejected"] == []


def test_a_tar_can_have_a_table_of_its_samples(tars: Path, tmp_path: Path) -> None:
    job = open_dataset(str(tars / "out"), StorageOptions())
    exported(job, tmp_path, "sidecar", sidecar="parquet")
    found = pq.read_table(tmp_path / "data" / "x.ground.parquet")
    assert found["key"].to_pylist() == [f"sub.d/{number:03d}" for number in range(6)]
    assert [row is None for row in found["brief"].to_pylist()] == [i == BROKEN for i in range(6)]


# ---- Parquet

ROWS, IN_A_GROUP = 12, 3


@pytest.fixture
def table(tmp_path: Path) -> StoredDataset:
    """A file of four groups of rows, each a shard. A row has no image; one shard is left out."""
    images = [picture(number) if number != BROKEN else b"broken" for number in range(ROWS)]
    rows = pa.table({"picture": images, "number": range(ROWS)})
    (tmp_path / "in").mkdir()
    pq.write_table(rows, tmp_path / "in" / "train.parquet", row_group_size=IN_A_GROUP)
    options = {"image_column": "picture", "samples_per_shard": IN_A_GROUP}
    job = dataset_of(tmp_path / "in", tmp_path / "out", lambda row: [an_annotation()], **options)
    assert len(job.plan.shards) == ROWS // IN_A_GROUP
    return job


@pytest.mark.parametrize("missing", [None, 0, 1, 3], ids=lambda shard: f"without {shard}")
def test_a_table_has_a_row_for_each_row_of_the_input(
    table: StoredDataset, tmp_path: Path, missing: int | None
) -> None:
    left_out = set()
    if missing is not None:
        table.store.delete(f"annotations/{table.plan.shards[missing].shard_id}.parquet")
        left_out = set(range(missing * IN_A_GROUP, (missing + 1) * IN_A_GROUP))
    exported(table, tmp_path / "side", "sidecar")
    input, side = tmp_path / "in" / "train.parquet", tmp_path / "side/data/train.ground.parquet"
    answered = [number not in left_out | {BROKEN} for number in range(ROWS)]

    arrow = pq.read_table(side)
    both = pq.read_table(input).append_column("brief", arrow["brief"])  # of the same length
    assert [row["brief"] is not None for row in both.to_pylist()] == answered
    for row, place in zip(both.to_pylist(), arrow["index"].to_pylist(), strict=True):
        assert place == (None if row["number"] in left_out else row["number"])

    joined = duckdb.sql(
        f"SELECT number, index, brief.caption FROM '{input}' POSITIONAL JOIN '{side}' ORDER BY 1"
    ).fetchall()
    assert len(joined) == ROWS
    assert [caption == "a cat." for _, _, caption in joined] == answered
    assert all(index in (None, number) for number, index, _ in joined)
    reasons = duckdb.sql(f"SELECT index, rejected[1].task FROM '{side}' WHERE len(rejected) > 0")
    assert reasons.fetchall() == ([(BROKEN, "brief")] if BROKEN not in left_out else [])


# ---- names and options


def test_files_of_one_name_in_several_folders_stay_apart(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        table = pa.table({"picture": [picture(ord(folder))], "name": [folder]})
        pq.write_table(table, tmp_path / "in" / folder / "part.parquet")
    job = dataset_of(
        tmp_path / "in", tmp_path / "out", lambda row: [an_annotation()], image_column="picture"
    )
    exported(job, tmp_path / "side", "sidecar")
    found = {path.name: sidecar_rows(path) for path in (tmp_path / "side" / "data").iterdir()}
    second = job.plan.shards[1]
    assert found.keys() == {"part.ground.parquet", f"{second.shard_id}.ground.parquet"}
    assert found[f"{second.shard_id}.ground.parquet"][0]["uri"] == second.uri


def test_images_in_a_folder_have_a_row_each(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(5):
        (tmp_path / "in" / f"{number}.jpg").write_bytes(picture(number))
    job = dataset_of(
        tmp_path / "in", tmp_path / "out", lambda row: [an_annotation()], samples_per_shard=2
    )
    exported(job, tmp_path / "side", "sidecar")
    rows = [row for path in (tmp_path / "side/data").iterdir() for row in sidecar_rows(path)]
    assert sorted(row["uri"].rpartition("/")[2] for row in rows) == [f"{i}.jpg" for i in range(5)]


def test_it_has_no_splits(tars: Path, tmp_path: Path) -> None:
    job = open_dataset(str(tars / "out"), StorageOptions())
    options = ExportOptions(format="sidecar", split=("train=1", "test=1"))
    with pytest.raises(SpecError, match="no splits; leave out --split"):
        export_dataset(job, InputStore(), open_output(str(tmp_path)), options)
    assert not any(tmp_path.iterdir())
