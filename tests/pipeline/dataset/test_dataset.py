"""A job on its output: the plan and `job.json`, made once, checked by every later run."""

import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from pipeline.dataset.dataset import open_dataset, read_record, settle_record
from pipeline.dataset.layout import RECORD_KEY
from pipeline.dataset.shards import load_plan
from pipeline.errors import InputMissing, ObjectMissing, SpecError, WrongIdentity
from pipeline.plan.planning import settle_plan
from pipeline.spec.identity import identity_of
from pipeline.spec.job import JobSpec
from pipeline.storage import OutputStore, StorageOptions, open_output
from tests.support.tars import MODEL, job_record, tar


@pytest.fixture
def spec(tmp_path: Path) -> JobSpec:
    add_inputs(tmp_path / "in", "ab")
    return JobSpec(input=str(tmp_path / "in"), output=str(tmp_path / "out"))


@pytest.fixture
def store(spec: JobSpec) -> OutputStore:
    return open_output(spec.output)


def add_inputs(folder: Path, names: str) -> None:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / f"{name}.tar").write_bytes(tar([]))


def changed(spec: JobSpec, **changes: Any) -> JobSpec:
    return JobSpec(**{**spec.model_dump(), **changes})


def planned(store: OutputStore, spec: JobSpec) -> list[str]:
    return [Path(shard.uri).name for shard in settle_plan(store, spec).shards]


# ---- the record


def test_the_first_run_writes_the_record(spec: JobSpec, store: OutputStore) -> None:
    assert read_record(store) is None
    record = settle_record(store, spec, MODEL)
    assert read_record(store) == record
    assert (record.spec, record.model) == (spec, MODEL)
    assert record.identity == identity_of(spec, MODEL)
    assert record.fingerprint == record.identity.fingerprint
    assert {"kosmos2-annotate", "torch", "ray", "pyarrow", "python"} <= record.software.keys()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"slots": 3, "actors": 2, "limit": 1, "stall_timeout_s": 5, "max_reject_rate": 1},
        {"include": ("*.tar",), "exclude": ("x",), "extend": True},
    ],
)
def test_later_runs_get_the_record_of_the_first(
    spec: JobSpec, store: OutputStore, changes: dict[str, Any]
) -> None:
    first = settle_record(store, spec, MODEL)
    assert settle_record(store, changed(spec, **changes), MODEL) == first


@pytest.mark.parametrize(
    ("spec_changes", "model_changes", "named"),
    [
        ({"exif": "ignore"}, {}, r"exif: requested \"ignore\", stored \"apply\""),
        ({"task": ("detailed",)}, {}, "tasks: "),
        ({"task": ("brief", "detailed")}, {}, "tasks: "),
        ({}, {"dtype": "float16"}, r"dtype: requested \"float16\", stored \"float32\""),
        ({}, {"weights_digest": "e" * 64}, "weights_digest: "),
        ({}, {"no_repeat_ngram_size": 0}, "no_repeat_ngram_size: requested 0, stored 3"),
        ({}, {"ngram_mode": "text"}, r"ngram_mode: requested \"text\", stored \"reference\""),
        ({"grammar": "strict"}, {}, r"grammar: requested \"strict\", stored \"off\""),
    ],
)
def test_another_identity_is_refused_by_the_name_of_its_field(
    spec: JobSpec,
    store: OutputStore,
    spec_changes: dict[str, Any],
    model_changes: dict[str, Any],
    named: str,
) -> None:
    first = settle_record(store, spec, MODEL)
    with pytest.raises(WrongIdentity, match=named) as refused:
        settle_record(store, changed(spec, **spec_changes), MODEL.model_copy(update=model_changes))
    assert str(refused.value).count("requested") == 1
    assert read_record(store) == first


def test_all_who_settle_at_once_get_one_record(spec: JobSpec, store: OutputStore) -> None:
    start = Barrier(8)

    def settle(actors: int) -> Any:
        start.wait()
        return settle_record(store, changed(spec, actors=actors), MODEL)

    with ThreadPoolExecutor(8) as pool:
        records = list(pool.map(settle, range(1, 9)))
    assert all(record == read_record(store) for record in records)


@pytest.mark.parametrize(
    "change",
    [
        lambda body: {**body, "colour": "red"},
        lambda body: {key: body[key] for key in body if key != "model"},
        lambda body: {**body, "spec": {**body["spec"], "task": ["a later task"]}},
        lambda body: [],
    ],
    ids=["unknown key", "missing key", "unknown task", "no object"],
)
def test_a_record_of_another_version_is_refused_in_words(
    store: OutputStore, change: Callable[[Any], Any]
) -> None:
    body = change(json.loads(job_record().model_dump_json()))
    store.put(RECORD_KEY, json.dumps(body).encode())
    with pytest.raises(SpecError, match=r"job\.json cannot be read by this version"):
        read_record(store)


# ---- the plan


def test_the_first_run_freezes_the_plan(spec: JobSpec, store: OutputStore, tmp_path: Path) -> None:
    assert planned(store, spec) == ["a.tar", "b.tar"]
    add_inputs(tmp_path / "in", "c")
    assert planned(store, spec) == ["a.tar", "b.tar"]
    assert planned(store, changed(spec, extend=True)) == ["a.tar", "b.tar", "c.tar"]
    assert planned(store, spec) == ["a.tar", "b.tar", "c.tar"]


def test_inputs_that_differ_from_the_plan_are_reported(
    spec: JobSpec, store: OutputStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settle_plan(store, spec)
    (tmp_path / "in" / "a.tar").write_bytes(b"changed")
    (tmp_path / "in" / "b.tar").unlink()
    add_inputs(tmp_path / "in", "c")
    with caplog.at_level(logging.WARNING):
        settle_plan(store, spec)
    said = caplog.text
    assert "1 inputs are new; add them to the plan with --extend" in said
    assert "1 inputs are changed since the plan" in said
    assert "1 inputs are vanished since the plan" in said


def test_another_input_is_refused_unless_it_extends(
    spec: JobSpec, store: OutputStore, tmp_path: Path
) -> None:
    settle_plan(store, spec)
    store.create("annotations/x.parquet", b"committed")
    add_inputs(tmp_path / "other", "xy")
    other = changed(spec, input=str(tmp_path / "other"))
    with pytest.raises(SpecError, match=r"made from other inputs \(file://.*/in/a\.tar"):
        settle_plan(store, other)
    assert planned(store, changed(other, extend=True)) == ["a.tar", "b.tar", "x.tar", "y.tar"]


@pytest.mark.parametrize("has_record", [True, False])
def test_a_wrong_guess_does_not_bind_while_nothing_is_committed(
    spec: JobSpec, store: OutputStore, tmp_path: Path, has_record: bool
) -> None:
    settle_plan(store, spec)
    if has_record:
        settle_record(store, spec, MODEL)
    store.create("failed/a.json", b"{}")
    add_inputs(tmp_path / "other", "xy")
    assert planned(store, changed(spec, input=str(tmp_path / "other"))) == ["x.tar", "y.tar"]
    assert (store.list("failed/"), read_record(store)) == ([], None)


def test_another_kind_of_input_does_not_bind_while_nothing_is_committed(
    spec: JobSpec, store: OutputStore, tmp_path: Path
) -> None:
    (tmp_path / "in" / "list.csv").write_text("url\na.jpg\n")
    listed = changed(spec, input_format="manifest")
    assert planned(store, listed) == ["list.csv"]
    assert len(store.list("listings/")) == 1
    assert planned(store, changed(spec, input_format="auto")) == ["a.tar", "b.tar"]
    assert store.list("listings/") == []
    store.create("annotations/x.parquet", b"committed")
    with pytest.raises(SpecError, match="made from other inputs"):
        settle_plan(store, listed)


def test_a_part_of_a_plan_never_starts_over(
    spec: JobSpec, store: OutputStore, tmp_path: Path
) -> None:
    """Other runs may be at work on theirs."""
    settle_plan(store, spec)
    add_inputs(tmp_path / "other", "xy")
    with pytest.raises(SpecError, match="made from other inputs"):
        settle_plan(store, changed(spec, input=str(tmp_path / "other"), partition="0/2"))


def test_what_was_ignored_is_in_the_record(
    spec: JobSpec, store: OutputStore, tmp_path: Path
) -> None:
    for name in (".DS_Store", "notes.txt", "more.txt", "cover.jpg", "noext"):
        (tmp_path / "in" / name).write_bytes(b"x")
    plan = settle_plan(store, spec)
    record = settle_record(store, spec, MODEL, plan.ignored)
    assert read_record(store) == record
    assert {each.reason: each.count for each in record.ignored} == {
        "hidden": 1,
        "images beside archives": 1,
        "not archives (.txt)": 2,
        "not archives (no extension)": 1,
    }
    assert all(each.first[0].startswith(f"file://{tmp_path}/in/") for each in record.ignored)


def test_without_inputs_there_is_no_plan_but_a_frozen_one_stays(
    spec: JobSpec, store: OutputStore, tmp_path: Path
) -> None:
    with pytest.raises(InputMissing):
        settle_plan(store, changed(spec, include=("*.zip",)))
    plan = settle_plan(store, spec)
    for path in (tmp_path / "in").iterdir():
        path.unlink()
    assert settle_plan(store, spec) == plan


# ---- both


def test_a_job_opens_only_where_one_was_begun(spec: JobSpec, store: OutputStore) -> None:
    with pytest.raises(ObjectMissing, match="holds no dataset"):
        open_dataset(spec.output, StorageOptions())
    plan, record = settle_plan(store, spec), settle_record(store, spec, MODEL)
    job = open_dataset(spec.output, StorageOptions())
    assert (job.plan, job.record) == (plan, record)


def test_a_manifest_of_nothing_is_no_input(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("url,words\n")
    spec = JobSpec(input=str(tmp_path / "a.csv"), output=str(tmp_path / "out"))
    store = open_output(spec.output)
    with pytest.raises(InputMissing, match="names no images"):
        settle_plan(store, spec)
    assert load_plan(store) is None
