"""The samples' own fields: kept as metadata, carried as columns, and what becomes of them."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.dataset.commit import read_commit
from pipeline.dataset.dataset import StoredDataset, check_identity, open_dataset
from pipeline.dataset.layout import RECORD_KEY
from pipeline.dataset.listings import StoredListings
from pipeline.dataset.shards import freeze_plan
from pipeline.driver.committer import Committer
from pipeline.errors import SpecError
from pipeline.execution.annotate.tables import TableAnnotator
from pipeline.exports.exporting import export_dataset
from pipeline.exports.options import ExportOptions
from pipeline.plan.cutting import cut
from pipeline.plan.discovery import discover
from pipeline.reading.shard_reader import ShardReader
from pipeline.spec.fields import Carried, FieldChoice
from pipeline.spec.identity import identity_of
from pipeline.spec.job import JobSpec
from pipeline.storage import InputStore, StorageOptions, open_output
from pipeline.verification.outputs import verify_dataset
from tests.support.annotators import Answering
from tests.support.forms import FORMS, Scene
from tests.support.tars import MODEL, an_annotation, job_record, picture

SCENES = [Scene(name=f"s{i}", data=picture(i)) for i in range(3)]
FIELDS = {"url": "u", "n": 3, "share": 0.5, "ok": True, "deep": {"a": [1, 2]}, "text": "7"}


class Saying(Answering):
    def _answer(self, brightness: int, task: str) -> Any:
        return an_annotation(task)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("url", "u"),
        ("n", "3"),
        ("n:int64", 3),
        ("n:double", 3.0),
        ("text:int64", 7),
        ("text:double", 7.0),
        ("share:double", 0.5),
        ("ok:bool", True),
        ("deep", '{"a": [1, 2]}'),
        ("deep.a.1:int64", 2),
        ("gone", None),
        ("gone:bool", None),
    ],
)
def test_a_field_becomes_a_value_of_its_type(text: str, value: object) -> None:
    found = Carried.parse(text).value(FIELDS)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a:int64", 0.5),
        ("a:int64", "x"),
        ("a:int64", 2**63),
        ("a:int64", True),
        ("a:double", "nan"),
        ("a:double", [1]),
        ("a:double", 10**400),
        ("a:int64", float("inf")),
        ("a:bool", 1),
        ("a:bool", "maybe"),
    ],
)
def test_a_value_of_another_type_is_null_and_said(text: str, value: object) -> None:
    choice = FieldChoice(kept=None, carried=(Carried.parse(text),))
    row = choice.applied_to({"metadata": "{}", "issues": ["tiny_image"]}, {"a": value})
    assert (row["a"], row["issues"]) == (None, ["tiny_image", "carried_invalid"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"carry": ("url:text",)}, "types are string, int64, double, bool"),
        ({"carry": ("a,a:int64",)}, "name each field once"),
        ({"carry": ("uri",)}, "is a column of every dataset"),
        ({"carry": ("",)}, "is not a field and a type"),
        ({"metadata": "a,,b"}, "all, none, or the names"),
    ],
)
def test_what_makes_no_column_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        JobSpec(input="in", output="out", **options)


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ("all", {"words": "about s0", "number": 2}),
        ("words", {"words": "about s0"}),
        ("number,gone", {"number": 2}),
        ("gone", None),
        ("none", None),
    ],
)
def test_metadata_are_those_that_are_asked_for(
    tmp_path: Path, metadata: str, expected: dict[str, Any] | None
) -> None:
    job = made(tmp_path, "tar", metadata=metadata)
    text = annotations(job)["metadata"][0].as_py()
    assert (json.loads(text) if text else None) == expected


@pytest.mark.parametrize("form", ["tar", "parquet", "csv"])
def test_carried_fields_are_typed_columns(tmp_path: Path, form: str) -> None:
    job = made(tmp_path, form, carry=("words,number:int64",), metadata="none")
    table = annotations(job)
    assert table.schema.field("words").type == pa.string()
    assert table.schema.field("number").type == pa.int64()
    assert table.select(["words", "number", "metadata"]).to_pylist() == [
        {"words": f"about {scene.name}", "number": 2, "metadata": None} for scene in SCENES
    ]
    assert verify_dataset(job.store, job.record).findings == ()
    schema, [shard] = job.record.identity.schema_of_rows, job.plan.shards
    assert read_commit(job.store, shard.shard_id, schema).rows.annotated == table


def test_another_choice_is_another_dataset(tmp_path: Path) -> None:
    job = made(tmp_path, "tar", carry=("words",))
    for changes in ({"carry": ()}, {"carry": ("words:int64",)}, {"metadata": "none"}):
        spec = JobSpec(**{**job.record.spec.model_dump(), **changes})
        with pytest.raises(SpecError, match=f"{next(iter(changes))}: requested"):
            check_identity(job.store, identity_of(spec, MODEL), job.record)


def test_exports_with_room_have_the_columns(tmp_path: Path) -> None:
    job = made(tmp_path, "tar", carry=("words", "number:double", "score:bool"), metadata="none")
    found = {name: exported(job, tmp_path / name, name) for name in ("hf", "boxes", "grit")}
    for table in (found["hf"], found["boxes"]):
        assert table["words"].to_pylist() == [f"about {scene.name}" for scene in SCENES]
        assert table["number"].to_pylist() == [2.0, 2.0, 2.0]
    assert found["hf"].schema.field("score").type == pa.bool_()
    # The boxes have a score already.
    assert found["boxes"].schema.field("sample_score").type == pa.bool_()
    features = json.loads(found["hf"].schema.metadata[b"huggingface"])["info"]["features"]
    assert features["number"] == {"dtype": "float64", "_type": "Value"}


def test_grit_takes_its_address_from_a_carried_field(tmp_path: Path) -> None:
    (folder := tmp_path / "in").mkdir()
    rows = [{"jpg": picture(), "url": "http://a/b.jpg", "clip_similarity_vitb32": 0.25}]
    pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet")
    carry = ("url", "clip_similarity_vitb32:double")
    job = job_on(folder, tmp_path / "out", carry=carry, metadata="none")
    [row] = exported(job, tmp_path / "grit", "grit").to_pylist()
    assert (row["url"], row["clip_similarity_vitb32"]) == ("http://a/b.jpg", 0.25)


def made(tmp_path: Path, form: str, **options: Any) -> StoredDataset:
    (folder := tmp_path / "in").mkdir()
    FORMS[form](folder, SCENES)
    return job_on(folder, tmp_path / "out", **options)


def job_on(folder: Path, output: Path, **options: Any) -> StoredDataset:
    """As a run would leave it; only what the model says is given."""
    spec = JobSpec(input=str(folder), output=str(output), **options)
    record, store = job_record(spec), open_output(spec.output)
    listings = StoredListings(store)
    plan = freeze_plan(store, cut(discover(spec), spec, listings).shards)
    store.create(RECORD_KEY, record.model_dump_json().encode())
    reader = ShardReader(store=InputStore(), tasks=spec.task_names, exif="apply", listings=listings)
    actor = TableAnnotator(spec, Saying())
    committer = Committer(store, record, plan.shards, max_reject_rate=0)
    for shard in plan.shards:
        for table in reader.read(shard):
            committer.add(actor(table))
    assert all(hasattr(outcome, "annotated") for outcome in committer.close())
    return open_dataset(spec.output, StorageOptions())


def annotations(job: StoredDataset) -> pa.Table:
    [key] = job.store.list("annotations/")
    with job.store.open(key) as file:
        return pq.read_table(file).replace_schema_metadata(None)


def exported(job: StoredDataset, folder: Path, name: str) -> pa.Table:
    export_dataset(job, InputStore(), open_output(str(folder)), ExportOptions(format=name))
    [path] = folder.rglob("*.parquet")
    return pq.read_table(path)
