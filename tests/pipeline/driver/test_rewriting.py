"""Rejected samples of a committed shard, tried again: nothing else is touched."""

import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.dataset.commit import Committed, ShardFailed, read_commit
from pipeline.dataset.layout import annotations_key
from pipeline.dataset.ledger import Ledger
from pipeline.dataset.shards import Shard
from pipeline.driver.committer import Committer
from pipeline.driver.finishing import ShardOutcome
from pipeline.errors import StorageError
from pipeline.parquet import file_metadata
from pipeline.storage import OutputStore, open_output
from tests.support.tars import (
    a_shard,
    annotated_row,
    annotated_table,
    end_row,
    job_record,
    rejected_row,
)

SHARD, TASKS = a_shard("a"), ("brief", "detailed")
KEY = annotations_key(SHARD.shard_id)
SAMPLES = 6


def rows(shard: Shard, indices: Any, *, rejected: Any = (), **changes: Any) -> Iterator[Any]:
    """`rejected` holds positions, or (position, task)."""
    for index in indices:
        for task in TASKS:
            if index in rejected or (index, task) in rejected:
                yield rejected_row(shard, index, task, **changes)
            else:
                yield annotated_row(shard, index, task)


def send(store: OutputStore, shard: Shard, *rows: Any, samples: int = SAMPLES) -> ShardOutcome:
    committer = Committer(store, job_record(), [shard], max_reject_rate=1)
    committer.add(annotated_table([*rows, end_row(shard, samples)]))
    [outcome] = committer.close()
    return outcome


def commit(store: OutputStore, *, rejected: Any) -> ShardOutcome:
    return send(store, SHARD, *rows(SHARD, range(SAMPLES), rejected=rejected))


def again(*only: int) -> Shard:
    return replace(SHARD, only=only)


def table(store: OutputStore, key: str = KEY) -> pa.Table:
    return pq.read_table(io.BytesIO(store.get(key).data))


def metadata(store: OutputStore) -> dict[str, str]:
    return file_metadata(store.get(KEY).data)


def test_a_rewritten_shard_equals_one_without_rejects(store: OutputStore) -> None:
    commit(store, rejected={1, 4})
    former = metadata(store)
    outcome = send(store, again(1, 4), *rows(SHARD, (1, 4)))
    assert isinstance(outcome, Committed)
    assert (outcome.annotated, outcome.rejected, outcome.is_ours) == (12, 0, True)
    written, found = table(store), metadata(store)
    other = open_output(f"{store.uri}-other")
    send(other, SHARD, *rows(SHARD, range(SAMPLES)))
    assert written.equals(table(other))
    same = metadata(other)
    assert found.pop("replaces") == former["commit_id"]
    assert found.pop("commit_id") == outcome.commit_id != same.pop("commit_id")
    assert found == same


def test_only_rejected_rows_change(local: OutputStore) -> None:
    commit(local, rejected={(1, "brief"), 4})
    before = table(local)
    answers = rows(SHARD, (1, 4), rejected={(4, "detailed")}, error_type="non_finite_logits")
    send(local, again(1, 4), *answers)
    after, rejects = table(local), table(local, metadata(local)["rejects"])
    assert [(r["index"], r["task"], r["error_type"]) for r in rejects.to_pylist()] == [
        (4, "detailed", "non_finite_logits")
    ]
    keys = [(row["index"], row["task"]) for row in before.to_pylist()]
    is_old = [(row["index"], row["task"]) in keys for row in after.to_pylist()]
    assert after.filter(pa.array(is_old)).equals(before)
    assert [k for k, old in zip(after["index"].to_pylist(), is_old, strict=True) if not old] == [
        1,
        4,
    ]


def test_an_annotated_row_stays_whatever_comes_for_it(local: OutputStore) -> None:
    commit(local, rejected={1})
    before = table(local)
    worse = [annotated_row(SHARD, 2, task, caption="An image of a dog.") for task in TASKS]
    send(local, again(1, 2), *rows(SHARD, (1,)), *worse)
    assert table(local).filter(pa.array([i not in (2, 3) for i in range(12)])).equals(before)


def test_nothing_is_written_where_nothing_got_better(store: OutputStore) -> None:
    commit(store, rejected={1, 4})
    before = store.get(KEY)
    outcome = send(store, again(1), *rows(SHARD, (1,), rejected={1}))
    assert isinstance(outcome, Committed)
    assert (outcome.rejected, outcome.is_ours) == (4, False)
    assert outcome.commit_id == metadata(store)["commit_id"]
    assert store.get(KEY) == before
    assert len(store.list("rejected/")) == 1
    assert store.list("ledger/replaced/") == []


def test_of_two_rewrites_at_once_the_later_is_refused(
    store: OutputStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(store, rejected={1, 4})
    put = type(store).put

    def overtaken(self: Any, key: str, data: bytes) -> None:
        monkeypatch.undo()
        put(self, key, data)
        assert isinstance(send(store, again(4), *rows(SHARD, (4,))), Committed)

    monkeypatch.setattr(type(store), "put", overtaken)
    late = send(store, again(1), *rows(SHARD, (1,)))
    assert isinstance(late, ShardFailed)
    assert (late.error_type, late.retriable) == ("conflict", True)
    left = table(store, metadata(store)["rejects"])
    assert set(left["index"].to_pylist()) == {1}
    # The next pass reads the commit as it is by then.
    assert isinstance(send(store, again(1), *rows(SHARD, (1,))), Committed)
    assert metadata(store)["rejects"] == ""


@pytest.mark.parametrize(
    ("key", "samples"), [("0001", SAMPLES + 1), ("another", SAMPLES)], ids=["count", "key"]
)
def test_a_shard_that_reads_as_others_samples_is_left_alone(
    local: OutputStore, key: str, samples: int
) -> None:
    commit(local, rejected={1})
    before = local.get(KEY)
    answers = list(rows(SHARD, (1,)))
    for row in answers:
        row["annotated"]["key"] = key
    outcome = send(local, again(1), *answers, samples=samples)
    assert isinstance(outcome, ShardFailed)
    assert outcome.error_type == "input_changed"
    assert local.get(KEY) == before


def test_a_part_is_complete_without_the_other_samples(local: OutputStore) -> None:
    commit(local, rejected={1, 4})
    outcome = send(local, again(1, 4), *rows(SHARD, (1,)))
    assert isinstance(outcome, ShardFailed)
    assert outcome.error_type == "incomplete"


def test_many_rejects_among_few_samples_trip_nothing(local: OutputStore) -> None:
    big = replace(SHARD, only=tuple(range(60)))
    send(local, SHARD, *rows(SHARD, range(100), rejected=range(60)), samples=100)
    committer = Committer(local, job_record(), [big], max_reject_rate=0)
    still = rows(SHARD, range(60), rejected=range(1, 60))
    committer.add(annotated_table([*still, end_row(big, 100)]))
    [outcome] = committer.close()
    assert isinstance(outcome, Committed)
    assert (outcome.annotated, outcome.rejected) == (82, 118)


# ---- summaries of what was replaced


def test_a_summary_of_a_replaced_commit_does_not_count(store: OutputStore) -> None:
    ledger = Ledger(store)
    first = commit(store, rejected={1, 4})
    ledger.summarise([first])
    second = send(store, again(1), *rows(SHARD, (1,)))
    assert ledger.summaries() == {SHARD.shard_id: second}
    assert ledger.unsummarised(ledger.committed()) == [second]
    ledger.summarise([second])
    ledger.summarise([first])  # by a run that was paused in between
    assert ledger.unsummarised(ledger.committed()) == []
    assert ledger.summaries() == {SHARD.shard_id: second}


def test_a_rewrite_that_did_not_arrive_costs_a_footer_only(
    local: OutputStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = commit(local, rejected={1})
    Ledger(local).summarise([first])

    def fail(*_: Any) -> str:
        raise StorageError("no network")

    with monkeypatch.context() as patch:
        patch.setattr(type(local), "replace", fail)
        assert isinstance(send(local, again(1), *rows(SHARD, (1,))), ShardFailed)
    assert local.list("ledger/replaced/") != []
    assert Ledger(local).summaries() == {SHARD.shard_id: first}


def test_a_commit_is_read_with_its_rejects(local: OutputStore) -> None:
    commit(local, rejected={1})
    found = read_commit(local, SHARD.shard_id)
    said = (found.committed.samples, found.committed.commit_id)
    assert said == (SAMPLES, metadata(local)["commit_id"])
    assert (found.rows.annotated.num_rows, found.rows.rejected.num_rows) == (10, 2)
