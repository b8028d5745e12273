"""What is planned, committed and failed: derived from storage."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pipeline.dataset.commit import Committed, ShardFailed
from pipeline.dataset.ledger import Failure, Ledger, Totals
from pipeline.driver.committer import Committer
from pipeline.errors import CorruptOutput
from pipeline.parquet import parquet_bytes
from pipeline.schema import LEDGER
from pipeline.storage import OutputStore, open_output
from tests.support.tars import (
    a_shard,
    annotated_row,
    annotated_table,
    end_row,
    job_record,
    rejected_row,
)


@pytest.fixture
def store(tmp_path: Path) -> OutputStore:
    return open_output(str(tmp_path / "out"))


def commit(store: OutputStore, name: str, samples: int = 2, **end: Any) -> Committed:
    """One sample is rejected for both tasks, the others are annotated."""
    shard, tasks = a_shard(name), ("brief", "detailed")
    committer = Committer(store, job_record(), [shard], max_reject_rate=1)
    rows = [
        (annotated_row if index else rejected_row)(shard, index, task)
        for index in range(samples)
        for task in tasks
    ]
    committer.add(annotated_table([*rows, end_row(shard, samples, **end)]))
    [committed] = committer.close()
    assert isinstance(committed, Committed)
    return committed


def failure(name: str, message: str = "no network") -> ShardFailed:
    return ShardFailed(
        shard_id=a_shard(name).shard_id,
        error_type="storage_error",
        message=message,
        retriable=True,
    )


def ids(names: str) -> set[str]:
    return {a_shard(name).shard_id for name in names}


def test_an_empty_output_has_an_empty_ledger(store: OutputStore) -> None:
    ledger = Ledger(store)
    assert (ledger.committed(), ledger.failed(set()), ledger.summaries()) == (set(), {}, {})
    assert ledger.totals() == Totals(
        shards=0, samples=0, annotated=0, rejected=0, truncated_shards=0
    )


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"half", "is damaged"),
        (parquet_bytes(LEDGER.empty_table()), "does not have the metadata of a commit"),
    ],
    ids=["cut off", "of somebody else"],
)
def test_a_commit_that_cannot_be_read_is_named(store: OutputStore, data: bytes, said: str) -> None:
    store.put("annotations/a.parquet", data)
    with pytest.raises(CorruptOutput, match=f"annotations/a.parquet {said}.*`kosmos2 verify"):
        Ledger(store).summaries()


def test_a_shard_is_committed_once_its_file_is_there(store: OutputStore) -> None:
    ledger = Ledger(store)
    commit(store, "a")
    assert ledger.committed() == ids("a")
    commit(store, "b")
    assert ledger.committed() == ids("ab")


# ---- failures


def test_attempts_are_counted_and_the_last_error_is_kept(store: OutputStore) -> None:
    ledger = Ledger(store)
    for attempt, message in enumerate(("first", "second", "third"), start=1):
        assert ledger.record_failure(failure("a", message)).attempts == attempt
    [found] = ledger.failed(set()).values()
    assert found == Failure(
        shard_id=a_shard("a").shard_id,
        error_type="storage_error",
        message="third",
        attempts=3,
        failed_at=found.failed_at,
    )


def test_a_commit_wins_over_a_failure(store: OutputStore) -> None:
    ledger = Ledger(store)
    for name in "ab":
        ledger.record_failure(failure(name))
    commit(store, "a")
    assert ledger.failed(ledger.committed()).keys() == ids("b")


def test_a_forgotten_failure_starts_from_one_again(store: OutputStore) -> None:
    ledger = Ledger(store)
    ledger.record_failure(failure("a"))
    ledger.forget_failure(a_shard("a").shard_id)
    ledger.forget_failure(a_shard("never").shard_id)
    assert ledger.failed(set()) == {}
    assert ledger.record_failure(failure("a")).attempts == 1


# ---- summaries


@pytest.mark.parametrize("summarised", ["", "a", "ab", "abc"])
def test_summaries_are_the_same_whatever_the_ledger_lacks(
    store: OutputStore, summarised: str
) -> None:
    ledger = Ledger(store)
    commits = {name: commit(store, name, 2 + i) for i, name in enumerate("abc")}
    ledger.summarise([commits[name] for name in summarised])
    assert ledger.summaries() == {c.shard_id: c for c in commits.values()}
    left = ledger.unsummarised(ledger.committed())
    assert {c.shard_id for c in left} == ids("abc") - ids(summarised)
    assert ledger.unsummarised(ids("a")) == [commits["a"]] * ("a" not in summarised)


def test_summarised_commits_are_not_read_again(store: OutputStore) -> None:
    ledger = Ledger(store)
    ledger.summarise([commit(store, "a")])
    store.put(f"annotations/{a_shard('a').shard_id}.parquet", b"not even Parquet")
    assert ledger.summaries().keys() == ids("a")


def test_a_damaged_summary_is_as_good_as_none(store: OutputStore) -> None:
    commits = [commit(store, name) for name in "ab"]
    Ledger(store).summarise(commits[:1])
    store.put("ledger/000000.parquet", b"any")
    ledger = Ledger(store)
    left = ledger.unsummarised(ledger.committed())
    assert left == sorted(commits, key=lambda c: c.shard_id)


def test_another_versions_failure_keeps_its_attempts(store: OutputStore) -> None:
    ledger, shard_id = Ledger(store), a_shard("a").shard_id
    body = {"shard_id": shard_id, "attempts": 2, "why": "in another field"}
    store.put(f"failed/{shard_id}.json", json.dumps(body).encode())
    assert ledger.failed(set())[shard_id].attempts == 2
    assert ledger.record_failure(failure("a")).attempts == 3


def test_a_damaged_failure_counts_as_none(
    store: OutputStore, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger(store)
    key = f"failed/{a_shard('a').shard_id}.json"
    store.put(key, b"{")
    assert ledger.failed(set()) == {}
    assert f"{key} cannot be read" in caplog.text
    assert ledger.record_failure(failure("a")).attempts == 1


def test_totals_count_rows_of_all_tasks(store: OutputStore) -> None:
    ledger = Ledger(store)
    ledger.summarise([commit(store, "a", 5)])
    commit(store, "b", 3, truncated=True)
    assert ledger.totals() == Totals(
        shards=2, samples=8, annotated=12, rejected=4, truncated_shards=1
    )


def test_a_summary_of_a_file_that_is_gone_does_not_count(store: OutputStore) -> None:
    ledger = Ledger(store)
    ledger.summarise([commit(store, "a"), commit(store, "b")])
    store.delete(f"annotations/{a_shard('a').shard_id}.parquet")
    assert ledger.summaries().keys() == ids("b")


def test_a_summary_of_nothing_is_not_written(store: OutputStore) -> None:
    Ledger(store).summarise([])
    assert store.list("ledger/") == []


@pytest.mark.parametrize("place", ["local", "s3"])
def test_no_summary_of_two_writers_is_lost(
    store: OutputStore, request: pytest.FixtureRequest, place: str
) -> None:
    if place == "s3":
        store = open_output(f"s3://{request.getfixturevalue('s3_bucket')}/out")
    commits = [commit(store, name) for name in "abcdef"]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda one: Ledger(store).summarise([one]), commits))
    assert len(store.list("ledger/")) == 6
    assert Ledger(store).unsummarised(Ledger(store).committed()) == []
