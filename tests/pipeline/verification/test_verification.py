"""Each defect is planted in a good output, found by its name, and mended if it can be."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cli import run_command
from pipeline.dataset.commit import Committed
from pipeline.dataset.dataset import write_success
from pipeline.dataset.layout import RECORD_KEY, annotations_key, lease_key
from pipeline.dataset.lease import Lease
from pipeline.dataset.leases import owners, writing_to
from pipeline.dataset.ledger import Ledger
from pipeline.dataset.shards import Shard, freeze_plan
from pipeline.driver.committer import Committer
from pipeline.parquet import file_metadata, parquet_bytes
from pipeline.plan.planning import settle_plan
from pipeline.schema import ANNOTATION, PLAN, REJECTION
from pipeline.spec.job import JobSpec
from pipeline.storage import OutputStore, open_output
from pipeline.verification.findings import Defect
from pipeline.verification.mending import mend
from pipeline.verification.outputs import Report, drift_from, verify_dataset
from tests.support.tars import (
    a_shard,
    annotated_row,
    annotated_table,
    end_row,
    job_record,
    rejected_row,
)

A, B, C = (a_shard(name) for name in "abc")
KEY_A = annotations_key(A.shard_id)
TASKS = ("brief", "detailed")
SAMPLES = 5


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    finished(open_output(str(folder)))
    return folder


@pytest.fixture
def store(good: Path, folder: Path) -> OutputStore:
    shutil.copytree(good, folder)
    return open_output(str(folder))


def finished(store: OutputStore) -> OutputStore:
    """Three shards, one of them without rejects, and all the bookkeeping of a finished run."""
    record = job_record()
    store.create(RECORD_KEY, record.model_dump_json().encode())
    freeze_plan(store, (A, B, C))
    ledger = Ledger(store)
    ledger.summarise([commit(store, A, 1), commit(store, B, 1), commit(store, C, 0)])
    write_success(store, record, ledger.totals())
    return store


def commit(store: OutputStore, shard: Shard, rejected: int) -> Committed:
    committer = Committer(store, job_record(), [shard], max_reject_rate=1)
    rows = [
        (rejected_row if index < rejected else annotated_row)(shard, index, task)
        for index in range(SAMPLES)
        for task in TASKS
    ]
    committer.add(annotated_table([*rows, end_row(shard, SAMPLES)]))
    [committed] = committer.close()
    assert isinstance(committed, Committed)
    return committed


def verified(store: OutputStore) -> Report:
    return verify_dataset(store, job_record(), running=owners(store))


def defects(report: Report) -> set[Defect]:
    return {finding.defect for finding in report.findings}


# ---- planting


def rewritten(
    store: OutputStore,
    change: Callable[[list[dict[str, Any]]], Any] = lambda rows: None,
    schema: pa.Schema = ANNOTATION,
    key: str = KEY_A,
    **metadata: str,
) -> None:
    """The file with its rows changed in place, and other metadata."""
    data = store.get(key).data
    rows = pq.read_table(io.BytesIO(data)).to_pylist()
    change(rows)
    table = pa.Table.from_pylist(rows, schema=schema)
    store.put(key, parquet_bytes(table, {**file_metadata(data), **metadata}))


def rejects_of(store: OutputStore) -> str:
    return file_metadata(store.get(KEY_A).data)["rejects"]


def flip(store: OutputStore, key: str) -> None:
    """One bit of the first column's values."""
    data = bytearray(store.get(key).data)
    column = pq.read_metadata(io.BytesIO(data)).row_group(0).column(0)
    data[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    store.put(key, bytes(data))


def row(**values: Any) -> Callable[[OutputStore], None]:
    return lambda store: rewritten(store, lambda rows: rows[2].update(values))


def entity(**values: Any) -> Callable[[OutputStore], None]:
    return lambda store: rewritten(store, lambda rows: rows[2]["entities"][0].update(values))


def box(**values: Any) -> Callable[[OutputStore], None]:
    return lambda store: rewritten(
        store, lambda rows: rows[2]["entities"][0]["boxes"][0].update(values)
    )


def footer(**values: str) -> Callable[[OutputStore], None]:
    return lambda store: rewritten(store, **values)


def put(key: str, data: bytes) -> Callable[[OutputStore], None]:
    return lambda store: store.put(key, data)


def swap_shards(store: OutputStore) -> None:
    store.put(KEY_A, store.get(annotations_key(B.shard_id)).data)


def annotate_what_is_rejected(store: OutputStore) -> None:
    rewritten(store, lambda rows: rows.extend([{**rows[0], "index": 0}, {**rows[1], "index": 0}]))


def change_summary(store: OutputStore) -> None:
    [name] = store.list("ledger/")
    data = store.get(name).data
    rows = [{**r, "annotated": 99} for r in pq.read_table(io.BytesIO(data)).to_pylist()]
    store.put(
        name, parquet_bytes(pa.Table.from_pylist(rows, schema=pq.read_schema(io.BytesIO(data))))
    )


def change_success(store: OutputStore) -> None:
    body = json.loads(store.get("_SUCCESS.json").data)
    store.put("_SUCCESS.json", json.dumps({**body, "annotated": 99}).encode())


def commit_what_is_not_planned(store: OutputStore) -> None:
    commit(store, a_shard("other"), 0)


def record_failure(store: OutputStore) -> None:
    body = {"shard_id": A.shard_id, "error_type": "x", "message": "", "attempts": 1}
    store.put(f"failed/{A.shard_id}.json", json.dumps({**body, "failed_at": ""}).encode())


def leave_partials(store: OutputStore) -> None:
    for name in (".probe-0123", "annotations/.x.parquet.0123.tmp", "ledger/.0.parquet.4.tmp"):
        store.put(name, b"half")


def plan_twice(store: OutputStore) -> None:
    store.put("plan/00001.parquet", store.get("plan/00000.parquet").data)


def lose_generation(store: OutputStore) -> None:
    store.put("plan/00002.parquet", parquet_bytes(PLAN.empty_table()))


REJECTS = "rejected/a-0123456789ab.parquet"
PLANTED: dict[str, tuple[Callable[[OutputStore], Any], set[Defect]]] = {
    "a commit cut off": (
        lambda s: s.put(KEY_A, s.get(KEY_A).data[:-100]),
        {Defect.COMMIT_DAMAGED, Defect.SUCCESS_WRONG},
    ),
    "an empty commit": (put(KEY_A, b""), {Defect.COMMIT_DAMAGED, Defect.SUCCESS_WRONG}),
    "a flipped bit": (lambda s: flip(s, KEY_A), {Defect.COMMIT_DAMAGED, Defect.SUCCESS_WRONG}),
    "a column less": (
        lambda s: rewritten(s, schema=ANNOTATION.remove(ANNOTATION.get_field_index("issues"))),
        {Defect.WRONG_SCHEMA},
    ),
    "a row less": (
        lambda s: rewritten(s, lambda rows: rows.pop(3)),
        {Defect.ROWS_MISSING, Defect.WRONG_COUNTS},
    ),
    "a row twice": (
        lambda s: rewritten(s, lambda rows: rows.append(rows[3])),
        {Defect.ROWS_TWICE, Defect.WRONG_COUNTS},
    ),
    "annotated and rejected": (
        annotate_what_is_rejected,
        {Defect.ROWS_TWICE, Defect.WRONG_COUNTS},
    ),
    "another position": (row(index=77), {Defect.ROWS_MISSING, Defect.ROWS_FOREIGN}),
    "another task": (row(task="sing"), {Defect.ROWS_MISSING, Defect.ROWS_FOREIGN}),
    "another shard's row": (row(shard_id="b"), {Defect.ROWS_FOREIGN}),
    "another input's row": (row(uri="s3://in/b.tar"), {Defect.ROWS_FOREIGN}),
    "another shard's file": (
        swap_shards,
        {
            Defect.WRONG_PROVENANCE,
            Defect.ROWS_FOREIGN,
            Defect.LEDGER_WRONG,
            Defect.REJECTS_ORPHANED,
        },
    ),
    "offsets moved": (entity(start=11, end=16), {Defect.WRONG_OFFSETS}),
    "offsets from the end": (entity(start=-6, end=-1), {Defect.WRONG_OFFSETS}),
    "another phrase": (entity(phrase="a dog"), {Defect.WRONG_OFFSETS}),
    "box out of range": (box(x2=1.5), {Defect.WRONG_BOX}),
    "box inverted": (box(x1=0.75, x2=0.25), {Defect.WRONG_BOX}),
    "box of NaN": (box(y1=float("nan")), {Defect.WRONG_BOX}),
    "box of other cells": (box(ul=265), {Defect.WRONG_BOX}),
    "cells in the wrong order": (box(ul=535, lr=264), {Defect.WRONG_BOX}),
    "no such cell": (box(lr=1024), {Defect.WRONG_BOX}),
    "score above one": (box(score=1.5), {Defect.WRONG_VALUE}),
    "score of NaN": (box(score=float("nan")), {Defect.WRONG_VALUE}),
    "positive log-probability": (box(logp=0.5), {Defect.WRONG_VALUE}),
    "unknown source": (box(source="me"), {Defect.WRONG_VALUE}),
    "token without log-probability": (row(token_ids=[1]), {Defect.WRONG_VALUE}),
    "prompt longer than the caption": (row(prompt_chars=99), {Defect.WRONG_VALUE}),
    "no width": (row(width=0), {Defect.WRONG_VALUE}),
    "unknown orientation": (row(exif_orientation=9), {Defect.WRONG_VALUE}),
    "unknown finish": (row(finish_reason="tired"), {Defect.WRONG_VALUE}),
    "image beyond its file": (row(image_offset=999), {Defect.WRONG_VALUE}),
    "offset without size": (row(image_size=None), {Defect.WRONG_VALUE}),
    "metadata that are no JSON": (row(metadata="{"), {Defect.WRONG_VALUE}),
    "another fingerprint": (footer(fingerprint="0"), {Defect.WRONG_PROVENANCE}),
    "a rejected copy": (
        footer(copies=json.dumps({"": {B.shard_id: [[0, 0]]}})),
        {Defect.WRONG_COPY},
    ),
    "a copy of nothing": (
        footer(copies=json.dumps({"": {B.shard_id: [[2, 99]]}})),
        {Defect.WRONG_COPY},
    ),
    "a list of copies that is none": (footer(copies="[1]"), {Defect.WRONG_PROVENANCE}),
    "another ETag": (footer(input_etag="0"), {Defect.WRONG_PROVENANCE}),
    "no commit id": (footer(commit_id=""), {Defect.WRONG_PROVENANCE, Defect.LEDGER_WRONG}),
    "wrong counts": (
        footer(annotated="1"),
        {Defect.WRONG_COUNTS, Defect.LEDGER_WRONG, Defect.SUCCESS_WRONG},
    ),
    "no counts": (
        footer(samples="many"),
        {Defect.WRONG_COUNTS, Defect.SUCCESS_WRONG},
    ),
    "too few samples counted": (
        footer(samples="4"),
        {Defect.ROWS_FOREIGN, Defect.LEDGER_WRONG, Defect.SUCCESS_WRONG},
    ),
    "rejects gone": (lambda s: s.delete(rejects_of(s)), {Defect.REJECTS_MISSING}),
    "rejects damaged": (lambda s: flip(s, rejects_of(s)), {Defect.REJECTS_DAMAGED}),
    "rejects a row less": (
        lambda s: rewritten(s, lambda rows: rows.pop(), REJECTION, rejects_of(s)),
        {Defect.ROWS_MISSING, Defect.WRONG_COUNTS},
    ),
    "a list of pictures without a plan": (
        put("listings/0123456789abcdef.parquet", b"any"),
        {Defect.LISTING_ORPHANED},
    ),
    "a stray file among lists": (put("listings/notes.txt", b"any"), {Defect.STRAY_FILE}),
    "orphaned rejects": (put(REJECTS, b"any"), {Defect.REJECTS_ORPHANED}),
    "partial files": (leave_partials, {Defect.PARTIAL_FILE}),
    "a stray file": (put("annotations/notes.txt", b"any"), {Defect.STRAY_FILE}),
    "a stray file among rejects": (put("rejected/notes.txt", b"any"), {Defect.STRAY_FILE}),
    "a commit without a plan": (
        commit_what_is_not_planned,
        {Defect.COMMIT_UNPLANNED, Defect.SUCCESS_WRONG},
    ),
    "a failure that was overcome": (record_failure, {Defect.FAILURE_OUTDATED}),
    "a damaged failure": (put("failed/x.json", b"{"), {Defect.FAILURE_DAMAGED}),
    "a damaged summary": (put("ledger/000007.parquet", b"any"), {Defect.LEDGER_WRONG}),
    "a wrong summary": (change_summary, {Defect.LEDGER_WRONG}),
    "a wrong success": (change_success, {Defect.SUCCESS_WRONG}),
    "success that is no JSON": (put("_SUCCESS.json", b"{"), {Defect.SUCCESS_WRONG}),
    "success too early": (lambda s: s.delete(KEY_A), {Defect.SUCCESS_WRONG}),
    "a damaged plan": (put("plan/00000.parquet", b"any"), {Defect.PLAN_DAMAGED}),
    "a plan with a gap": (lose_generation, {Defect.PLAN_INCONSISTENT}),
    "a shard planned twice": (plan_twice, {Defect.PLAN_INCONSISTENT}),
}


def mended(store: OutputStore) -> Report:
    with writing_to(store):
        return mend(store, job_record(), verify_dataset(store, job_record()))


def test_a_good_output_has_no_defect(store: OutputStore) -> None:
    report = verified(store)
    assert report.findings == ()
    assert (report.shards_planned, report.shards_left, report.shards_failed) == (3, 0, 0)
    assert (report.totals.annotated, report.totals.rejected) == (26, 4)


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_defect_is_found_and_mended_where_that_loses_nothing(
    name: str, store: OutputStore
) -> None:
    plant, expected = PLANTED[name]
    plant(store)
    assert defects(verified(store)) == expected
    hopeless = {d for d in expected if d not in MENDABLE}
    if hopeless == expected and name not in TRIED.values():
        return  # mending finds the same to do as for another one
    commits = store.list("annotations/")

    left = defects(mended(store))

    assert left == hopeless
    assert defects(verified(store)) == hopeless
    if Defect.COMMIT_DAMAGED in expected:
        commits.remove(KEY_A)
        commit(store, A, 1)
        assert defects(verified(store)) == set()
    assert set(commits) <= set(store.list("annotations/"))


MENDABLE = {
    Defect.COMMIT_DAMAGED,
    Defect.LISTING_ORPHANED,
    Defect.REJECTS_ORPHANED,
    Defect.PARTIAL_FILE,
    Defect.FAILURE_OUTDATED,
    Defect.FAILURE_DAMAGED,
    Defect.LEDGER_WRONG,
    Defect.SUCCESS_WRONG,
}


# Defects -> one of those that show them.
TRIED = {frozenset(expected): name for name, (_, expected) in PLANTED.items()}


def test_every_kind_of_defect_is_planted() -> None:
    planted = set().union(*(expected for _, expected in PLANTED.values()))
    elsewhere = {Defect.INPUT_CHANGED, Defect.INPUT_VANISHED, Defect.JOB_INCONSISTENT}
    elsewhere |= {Defect.EMPTY_ROW_GROUP}  # test_emptiness.py
    elsewhere |= {Defect.ROUND_DAMAGED}  # test_dedup_rounds.py
    assert planted | elsewhere == set(Defect)


def test_a_finding_says_where_and_how_many(store: OutputStore) -> None:
    rewritten(store, lambda rows: [row.update(width=0) for row in rows[3:6]])
    [finding] = verified(store).findings
    assert (finding.name, finding.rows) == (KEY_A, 3)
    assert finding.message == "index 2, task detailed: width is wrong"


def test_rejects_of_a_commit_that_cannot_be_read_are_kept(store: OutputStore) -> None:
    store.put(KEY_A, b"any")
    assert Defect.REJECTS_ORPHANED not in defects(verified(store))


def test_an_unfinished_output_has_no_defect(store: OutputStore) -> None:
    for key in (KEY_A, "_SUCCESS.json"):
        store.delete(key)
    report = verified(store)
    assert report.findings == ()
    assert (report.shards_left, report.totals.shards) == (1, 2)


def test_summaries_are_made_anew(store: OutputStore) -> None:
    [old] = store.list("ledger/")
    store.put("ledger/replaced/0123", b"any")
    before = store.get(old).data
    store.delete(old)
    assert mended(store).findings == ()
    assert pq.read_table(io.BytesIO(store.get(old).data)).equals(pq.read_table(io.BytesIO(before)))
    assert store.list("ledger/replaced/") == []


def test_a_fingerprint_that_is_not_the_identitys_is_found(store: OutputStore) -> None:
    other = job_record().model_copy(update={"fingerprint": "0"})
    assert Defect.JOB_INCONSISTENT in defects(verify_dataset(store, other))


# ---- inputs


def test_inputs_are_compared_with_the_plan(tmp_path: Path) -> None:
    inputs = tmp_path / "in"
    inputs.mkdir()
    for name in ("a", "b", "c"):
        (inputs / f"{name}.tar").write_bytes(b"any")
    spec = JobSpec(input=str(inputs), output=str(tmp_path / "out"))
    store = open_output(spec.output)
    drift = drift_from(store, spec, spec.input)
    record = job_record(spec)
    settle_plan(store, spec)
    assert verify_dataset(store, record, drift=drift).findings == ()
    (inputs / "a.tar").write_bytes(b"changed")
    (inputs / "b.tar").unlink()
    (inputs / "d.tar").write_bytes(b"new")
    report = verify_dataset(store, record, drift=drift)
    assert [(f.defect, Path(f.name).name) for f in report.findings] == [
        (Defect.INPUT_CHANGED, "a.tar"),
        (Defect.INPUT_VANISHED, "b.tar"),
    ]
    assert report.inputs_new == 1
    for path in inputs.iterdir():
        path.unlink()
    assert len(verify_dataset(store, record, drift=drift).findings) == 3


# ---- a run at work


def test_what_is_in_flight_is_not_judged_and_not_mended(
    store: OutputStore, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leave_partials(store)
    store.put(REJECTS, b"any")
    lease = Lease(store, key=lease_key(), renew_s=0.1)
    lease.acquire()
    try:
        report = verified(store)
        assert (defects(report), len(report.running)) == (set(), 1)
        assert run_command(["verify", str(folder), "--fix"]) == 4
        assert "another run is writing" in capsys.readouterr().err
    finally:
        lease.release()
    assert defects(verified(store)) == {Defect.PARTIAL_FILE, Defect.REJECTS_ORPHANED}


def test_every_lease_is_held_while_mending(store: OutputStore) -> None:
    dead = Lease(store, key="leases/1-of-2.json")
    dead.acquire()
    dead.release()
    with writing_to(store):
        assert store.list("leases/") == [lease_key()]
        assert owners(store) != []
    assert store.list("leases/") == []


# ---- the command


def test_the_command_says_what_is_wrong_and_exits_6(
    store: OutputStore, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["verify", str(folder)]) == 0
    assert "3 of 3 shards committed" in capsys.readouterr().out
    box(x2=1.5)(store)
    store.put(REJECTS, b"any")

    assert run_command(["verify", str(folder), "--json"]) == 6
    found = json.loads(capsys.readouterr().out)["findings"]
    assert {(f["defect"], f["name"], f["rows"]) for f in found} == {
        ("wrong_box", KEY_A, 1),
        ("rejects_orphaned", REJECTS, 0),
    }
    assert all(f["remedy"] for f in found)

    assert run_command(["verify", str(folder), "--fix"]) == 6
    assert "rejects_orphaned" in capsys.readouterr().out
    assert run_command(["verify", str(folder)]) == 6
    printed = capsys.readouterr().out
    assert "wrong_box" in printed
    assert "rejects_orphaned" not in printed


def test_an_output_in_a_bucket_is_verified_and_mended(s3_bucket: str) -> None:
    store = finished(open_output(f"s3://{s3_bucket}/out"))
    assert verified(store).findings == ()
    store.put(".probe-0123", b"half")
    store.put(REJECTS, b"any")
    store.put(KEY_A, store.get(KEY_A).data[:-100])
    assert defects(verified(store)) == {
        Defect.COMMIT_DAMAGED,
        Defect.PARTIAL_FILE,
        Defect.REJECTS_ORPHANED,
        Defect.SUCCESS_WRONG,
    }
    assert run_command(["verify", store.uri, "--fix"]) == 0
    assert verified(store).findings == ()
    assert verified(store).shards_left == 1
