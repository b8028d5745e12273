"""The rows of "What happens when something fails" in docs/operations.md that need no Ray.

A driver that is to die is a process of its own, told by KOSMOS2_FAULTS where.
"""

import io
import json
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs.commands.annotate import _sum
from pipeline.dataset.commit import ShardFailed
from pipeline.dataset.layout import SUCCESS_KEY, annotations_key
from pipeline.dataset.ledger import Ledger
from pipeline.dataset.shards import shard_id, shard_of
from pipeline.driver import run as driver
from pipeline.driver.pending import Pending
from pipeline.driver.run import run
from pipeline.execution.worker_log import logged
from pipeline.faults import arm
from pipeline.parquet import file_metadata
from pipeline.plan.planning import settle_plan
from pipeline.reading.shard_reader import ShardReader
from pipeline.spec.job import JobSpec
from pipeline.spec.partition import Partition
from pipeline.storage import InputStore, OutputStore, StorageOptions, open_output, s3
from pipeline.storage.inputs import BLOCK_BYTES
from tests.support.committing import A, committer, outcomes, shard_table
from tests.support.drivers import (
    annotate_without_model,
    commit,
    commit_at,
    exit_code,
    finish,
    start,
)
from tests.support.patience import wait_for
from tests.support.proxy import Proxy, running_proxy
from tests.support.tars import pictures, tar


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.tar").write_bytes(tar(pictures(3)))
    return folder


@pytest.fixture(params=["local", "s3", pytest.param("azure", marks=pytest.mark.slow)])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "out")
    if request.param == "azure":
        return f"az://{request.getfixturevalue('container')}/out"
    return f"s3://{request.getfixturevalue('s3_bucket')}/out"


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    arm("")


def rows(store: OutputStore) -> int:
    data = store.get(annotations_key(A.shard_id)).data
    named = file_metadata(data)["rejects"]
    return sum(pq.read_table(io.BytesIO(d)).num_rows for d in (data, store.get(named).data))


@contextmanager
def through_proxy(uri: str, **faults: object) -> Iterator[tuple[Proxy, OutputStore]]:
    with running_proxy(os.environ["AWS_ENDPOINT_URL"], **faults) as proxy:
        yield proxy, open_output(uri, StorageOptions(endpoint_url=proxy.endpoint_url))


# ---- the driver


def test_driver_killed_before_its_put_leaves_no_commit(output: str) -> None:
    killed = start(commit_at, output, 60, faults="committer.before_put=kill")
    assert exit_code(killed) == -signal.SIGKILL
    store = open_output(output)
    assert store.list("annotations") == []
    assert len(store.list("rejected")) == 1  # no commit names it
    assert commit(store).is_ours
    assert rows(store) == 60


def test_driver_killed_after_its_put_has_committed(output: str) -> None:
    killed = start(commit_at, output, 60, faults="committer.after_put=kill")
    assert exit_code(killed) == -signal.SIGKILL
    store = open_output(output)
    assert rows(store) == 60
    assert Pending.of([A], Ledger(store)).left == ()
    [unsummarised] = Ledger(store).unsummarised(Ledger(store).committed())
    assert (unsummarised.samples, unsummarised.rejected) == (60, 2)


def test_driver_killed_in_mid_upload_leaves_nothing(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"s3://{s3_bucket}/out"
    with through_proxy(uri, hold_uploads=99) as (proxy, _):
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint_url)
        killed = start(commit_at, uri, 1000)
        monkeypatch.undo()
        wait_for(lambda: bool(proxy.held_uploads))
        killed.kill()
        assert exit_code(killed) == -signal.SIGKILL
    assert "/annotations/" in proxy.held_uploads[0]
    store = open_output(uri)
    assert store.list("annotations") == []
    assert commit(store).is_ours


def test_driver_killed_in_mid_write_leaves_nothing(tmp_path: Path) -> None:
    name = annotations_key(A.shard_id)
    killed = start(commit_at, str(tmp_path), 60, faults=f"local_store.written[key={name}]=kill")
    assert exit_code(killed) == -signal.SIGKILL
    store = open_output(str(tmp_path))
    assert store.list("annotations") == []
    assert list((tmp_path / "annotations").glob(".*.tmp"))
    assert list((tmp_path / "annotations").glob("*.parquet")) == []
    assert commit(store).is_ours
    assert rows(store) == 60


def test_exception_in_mid_write_leaves_nothing(tmp_path: Path) -> None:
    arm("local_store.written:2=raise:builtins.OSError")  # the first is the rejects file
    store = open_output(str(tmp_path))
    failed = commit(store)
    assert isinstance(failed, ShardFailed)
    assert failed.retriable
    assert [path.name for path in (tmp_path / "annotations").iterdir()] == []
    assert commit(store).is_ours


def test_driver_paused_before_its_put_loses_to_who_commits_meanwhile(
    output: str, tmp_path: Path
) -> None:
    here = tmp_path / "here"
    paused = start(commit_at, output, 60, faults=f"committer.before_put=pause@{here}")
    wait_for(here.exists)
    store = open_output(output)
    assert commit(store).is_ours
    before = store.get(annotations_key(A.shard_id))
    here.write_text("go on")
    assert exit_code(paused) == 0
    assert store.get(annotations_key(A.shard_id)) == before
    assert rows(store) == 60


def test_two_drivers_from_the_start_share_one_plan_and_each_shard(
    shards: Path, output: str, tmp_path: Path
) -> None:
    """Without a lease between them: it saves work, nothing depends on it."""
    here = [tmp_path / "one is here", tmp_path / "the other is here"]
    spec = spec_of(shards, output)
    both = [
        start(annotate_without_model, spec, faults=f"committer.before_put:1=pause@{file}")
        for file in here
    ]
    wait_for(lambda: all(file.exists() for file in here))
    for file in here:
        file.write_text("go on")
    assert sum(exit_code(one) for one in both) == 3
    store = open_output(output)
    assert len(store.list("plan")) == 1
    assert Ledger(store).totals().samples == 9


def test_driver_killed_while_planning_goes_on_with_its_plan(shards: Path, output: str) -> None:
    killed = start(annotate_without_model, spec_of(shards, output), faults="job.before_record=kill")
    assert exit_code(killed) == -signal.SIGKILL
    store = open_output(output)
    planned = store.get("plan/00000.parquet")
    assert store.list("") == []
    assert annotate_without_model(spec_of(shards, output)) == 3
    assert store.get("plan/00000.parquet") == planned


def test_driver_killed_before_its_verdict_finds_nothing_left_to_do(
    shards: Path, output: str
) -> None:
    annotate_without_model(spec_of(shards, output))
    killed = start(finish, spec_of(shards, output), faults="runner.before_verdict=kill")
    assert exit_code(killed) == -signal.SIGKILL
    store = open_output(output)
    assert SUCCESS_KEY not in store.list("")
    assert len(store.list("leases")) == 1
    verdict = run(spec_of(shards, output))
    assert verdict.exit_code == 0
    assert SUCCESS_KEY in store.list("")
    assert store.list("leases") == []


# ---- several jobs, each with its partition of one dataset


@pytest.fixture
def halves(shards: Path, output: str) -> tuple[JobSpec, JobSpec]:
    """A job for each half of the plan; both have shards."""
    names = iter(range(100))
    while {_half(path) for path in shards.iterdir()} != {0, 1}:
        (shards / f"{next(names)}.tar").write_bytes(tar(pictures(3)))
    whole = spec_of(shards, output)
    first, second = (
        whole.model_copy(update={"partition": Partition(index=i, of=2)}) for i in (0, 1)
    )
    return first, second


def _half(path: Path) -> int:
    return 0 if Partition.parse("0/2").holds(shard_id(f"file://{path}")) else 1


def test_the_partition_that_ends_last_says_success(halves: tuple[JobSpec, JobSpec]) -> None:
    first, second = halves
    store = open_output(first.output)
    annotate_without_model(first)
    assert run(first).exit_code == 0
    assert SUCCESS_KEY not in store.list("")
    annotate_without_model(second)
    assert run(second).exit_code == 0
    success = json.loads(store.get(SUCCESS_KEY).data)
    assert success["shards"] == len(store.list("annotations/")) >= 3


def test_partitions_that_end_at_once_say_success(
    halves: tuple[JobSpec, JobSpec], tmp_path: Path
) -> None:
    for half in halves:
        annotate_without_model(half)
    ending = [tmp_path / f"ending-{index}" for index in range(2)]
    runs = [
        start(finish, half, faults=f"runner.before_verdict=pause@{here}")
        for half, here in zip(halves, ending, strict=True)
    ]
    store = open_output(halves[0].output)
    wait_for(lambda: all(here.exists() for here in ending))
    assert store.list("leases/") == ["leases/0-of-2.json", "leases/1-of-2.json"]
    for here in ending:
        here.write_text("go on")
    assert [exit_code(one) for one in runs] == [0, 0]
    assert json.loads(store.get(SUCCESS_KEY).data)["shards"] == len(store.list("annotations/"))


def test_a_partition_that_ends_looks_at_the_plan_as_it_is_by_then(
    halves: tuple[JobSpec, JobSpec], shards: Path, tmp_path: Path
) -> None:
    for half in halves:
        annotate_without_model(half)
    ending = tmp_path / "ending"
    run_ = start(finish, halves[0], faults=f"runner.before_verdict=pause@{ending}")
    wait_for(ending.exists)
    (shards / "late.tar").write_bytes(tar(pictures(3)))
    store = open_output(halves[0].output)
    settle_plan(store, halves[1].model_copy(update={"extend": True}))
    ending.write_text("go on")
    assert exit_code(run_) == 0
    assert SUCCESS_KEY not in store.list("")


def test_success_of_a_shorter_plan_is_taken_back(
    shards: Path, output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything of the longer one is done: it may be cut off at any time."""
    spec, store = spec_of(shards, output), open_output(output)
    annotate_without_model(spec)
    assert run(spec).exit_code == 0
    assert run(spec).exit_code == 0  # nothing is left: it stays
    assert SUCCESS_KEY in store.list("")
    (shards / "late.tar").write_bytes(tar(pictures(3)))
    monkeypatch.setattr(driver, "_annotate", lambda *_: None)
    run(spec.model_copy(update={"extend": True}))
    assert len(store.list("plan")) == 2
    assert SUCCESS_KEY not in store.list("")


# ---- the store and the network


def test_put_whose_answer_is_lost_is_ours(s3_bucket: str) -> None:
    with through_proxy(f"s3://{s3_bucket}/out", lose_answers=2) as (proxy, store):
        committed = commit(store)  # the answer to the rejects file's is lost, too
        assert committed.is_ours
    assert sum(request.startswith("PUT") for request in proxy.requests) == 4
    assert rows(store_at(s3_bucket)) == 60


def test_put_whose_every_answer_is_lost_is_ours(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "REQUEST_ATTEMPTS", 2)
    with through_proxy(f"s3://{s3_bucket}/out", lose_answers=99) as (_, store):
        assert commit(store).is_ours
    assert rows(store_at(s3_bucket)) == 60


def test_store_that_asks_to_slow_down_gets_its_commit(s3_bucket: str) -> None:
    with through_proxy(f"s3://{s3_bucket}/out", slow_downs=3) as (_, store):
        s3.RETRIES.take()
        assert commit(store).is_ours
        assert s3.RETRIES.take() == 3
    assert rows(store_at(s3_bucket)) == 60


def test_a_run_says_how_often_the_store_was_asked_again(shards: Path, s3_bucket: str) -> None:
    spec = spec_of(shards, f"s3://{s3_bucket}/out")
    annotate_without_model(spec)
    before = s3.RETRIES.total
    with through_proxy(spec.output, slow_downs=1) as (proxy, _):
        at_proxy = spec.model_copy(update={"output_endpoint_url": proxy.endpoint_url})
        verdict = run(at_proxy)
    assert verdict.exit_code == 0
    assert verdict.store_retries - before == 1
    assert "3 requests to the store were retried" in _sum(replace(verdict, store_retries=3))
    assert "retried" not in _sum(replace(verdict, store_retries=0))


def test_store_that_takes_no_put_costs_a_pass(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "REQUEST_ATTEMPTS", 2)
    with through_proxy(f"s3://{s3_bucket}/out", refuse_puts=b"") as (_, store):
        failed = commit(store)
        assert isinstance(failed, ShardFailed)
        assert (failed.error_type, failed.retriable) == ("storage_error", True)
    assert store_at(s3_bucket).list("annotations") == []
    assert commit(store_at(s3_bucket)).is_ours


@pytest.mark.parametrize("fault", ["cut_bodies", "stall_bodies", "slow_downs"])
def test_body_that_breaks_off_is_fetched_again(
    fault: str,
    s3_bucket: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="pipeline")
    monkeypatch.setattr(s3, "READ_TIMEOUT_S", 1)
    open_output(f"s3://{s3_bucket}").put("in/a.tar", tar(pictures(70)))
    with through_proxy(f"s3://{s3_bucket}", **{fault: 2}) as (proxy, _):
        at_proxy = InputStore(StorageOptions(endpoint_url=proxy.endpoint_url))
        s3.RETRIES.take()
        [source] = at_proxy.list(f"s3://{s3_bucket}/in/").objects
        tables = list(logged("a", reader(at_proxy).read(shard_of(source)), attempt=0))
    assert getattr(proxy, fault) == 0
    listed_slowly = fault == "slow_downs"  # before anything is read
    assert caplog.records[-1].__dict__["store_retries"] == (0 if listed_slowly else 2)
    assert s3.RETRIES.take() == 2
    assert tables[-1]["end"][-1].as_py()["samples"] == 70
    assert tables[-1]["end"][-1].as_py()["error_type"] is None


# ---- the input


def test_input_overwritten_in_mid_read_fails_by_name(s3_bucket: str) -> None:
    store = open_output(f"s3://{s3_bucket}")
    # Decoding reads ahead, but not as far as beyond this.
    padding = [("pad.bin", bytes(2 * BLOCK_BYTES))]
    store.put("in/a.tar", tar([*pictures(80), *padding, *pictures(20)]))
    [source] = InputStore().list(f"s3://{s3_bucket}/in/").objects
    tables = reader(InputStore()).read(shard_of(source))
    assert next(tables).num_rows == 64
    store.put("in/a.tar", tar([*pictures(80), *padding, *pictures(21)]))
    *_, last = tables
    end = last["end"][-1].as_py()
    assert (end["error_type"], end["retriable"]) == ("input_changed", False)
    assert source.uri in end["message"]
    [failed] = outcomes(committer(store), shard_table(A, 64, **pick(end)))
    assert failed.error_type == "input_changed"
    assert store.list("annotations") == []


def spec_of(shards: Path, output: str) -> JobSpec:
    return JobSpec(input=str(shards), output=output)


def pick(end: dict[str, object]) -> dict[str, object]:
    return {name: end[name] for name in ("error_type", "message", "retriable")}


def reader(store: InputStore) -> ShardReader:
    return ShardReader(store=store, tasks=("brief",), exif="apply")


def store_at(bucket: str) -> OutputStore:
    return open_output(f"s3://{bucket}/out")
