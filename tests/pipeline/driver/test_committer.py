"""Shards out of a stream of rows, each committed once."""

import io
import json
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from itertools import chain
from threading import Barrier

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.costs.actor_time import ActorClock
from pipeline.dataset.commit import Committed, ShardFailed
from pipeline.dataset.layout import annotations_key
from pipeline.dataset.ledger import Ledger
from pipeline.driver import committer as committing
from pipeline.driver.committer import Committer
from pipeline.driver.finishing import ShardOutcome
from pipeline.errors import CorruptOutput
from pipeline.faults import arm
from pipeline.parquet import ParquetWriter, file_metadata
from pipeline.schema import ANNOTATION, REJECTION
from pipeline.storage import OutputStore
from tests.support.committing import RECORD, A, B, committer, outcomes, shard_table
from tests.support.patience import wait_for
from tests.support.tars import (
    MODEL,
    annotated_row,
    annotated_table,
)


def objects(store: OutputStore) -> list[str]:
    return [name for folder in ("annotations", "rejected") for name in store.list(folder)]


# ---- what a commit writes


def test_a_complete_shard_becomes_one_file(store: OutputStore) -> None:
    [committed] = outcomes(committer(store), shard_table(A, 3))
    data = store.get(annotations_key(A.shard_id)).data
    assert committed == Committed(
        shard_id=A.shard_id,
        commit_id=file_metadata(data)["commit_id"],
        samples=3,
        annotated=3,
        rejected=0,
        truncated=False,
    )
    assert objects(store) == [annotations_key(A.shard_id)]
    table = pq.read_table(io.BytesIO(store.get(annotations_key(A.shard_id)).data))
    assert table.schema.equals(ANNOTATION)
    assert table["index"].to_pylist() == [0, 1, 2]


def test_rejections_lie_in_a_file_that_the_commit_names(store: OutputStore) -> None:
    [committed] = outcomes(committer(store), shard_table(A, 3, rejected=2))
    assert (committed.annotated, committed.rejected) == (1, 2)
    assert sum(committed.reasons.values()) == 2
    named = file_metadata(store.get(annotations_key(A.shard_id)).data)["rejects"]
    assert store.list("rejected") == [named]
    table = pq.read_table(io.BytesIO(store.get(named).data))
    assert table.schema.equals(REJECTION)
    assert table["index"].to_pylist() == [0, 1]
    assert file_metadata(store.get(named).data)["fingerprint"] == RECORD.fingerprint


def test_the_rejects_file_is_written_before_the_commit(
    local: OutputStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    create = type(local).create
    monkeypatch.setattr(
        type(local), "create", lambda *a: (written.append(a[1].split("/")[0]), create(*a))[1]
    )
    outcomes(committer(local), shard_table(A, 3, rejected=1))
    assert written == ["rejected", "annotations"]


def test_a_commit_says_where_it_comes_from(local: OutputStore) -> None:
    outcomes(committer(local), shard_table(A, 3, rejected=1, truncated=True))
    found = file_metadata(local.get(annotations_key(A.shard_id)).data)
    assert len(found.pop("commit_id")) == 32
    assert found.pop("rejects").startswith(f"rejected/{A.shard_id}-")
    [task] = json.loads(found.pop("tasks"))
    assert (task["name"], task["prompt"]) == ("brief", "<grounding> An image of")
    assert task["max_new_tokens"] == 128
    assert found == {
        "schema_version": "2",
        "fingerprint": RECORD.fingerprint,
        "checkpoint_id": MODEL.id,
        "checkpoint_commit": MODEL.commit,
        "weights_digest": MODEL.weights_digest,
        "dtype": "float32",
        "software_version": version("kosmos2-annotate"),
        "input_uri": A.uri,
        "input_etag": A.etag,
        "input_size": str(A.size_bytes),
        "samples": "3",
        "annotated": "2",
        "rejected": "1",
        "truncated": "true",
        "reasons": found["reasons"],
    }
    assert list(json.loads(found["reasons"]).values()) == [1]


@pytest.mark.parametrize(
    ("samples", "rejected"), [(0, 0), (2, 2)], ids=["no samples", "all rejected"]
)
def test_a_shard_without_annotations_is_committed_too(
    local: OutputStore, samples: int, rejected: int
) -> None:
    [committed] = outcomes(committer(local), shard_table(A, samples, rejected))
    assert (committed.samples, committed.annotated, committed.rejected) == (samples, 0, rejected)
    assert pq.read_table(io.BytesIO(local.get(annotations_key(A.shard_id)).data)).num_rows == 0


def test_shards_may_come_mixed_and_in_pieces(local: OutputStore) -> None:
    mixed = pa.concat_tables([shard_table(B, 30), shard_table(A, 40)])
    pieces = [mixed.take(list(range(start, mixed.num_rows, 7))) for start in range(7)]
    found = outcomes(committer(local), *pieces)
    assert {(c.shard_id, c.annotated) for c in found} == {(A.shard_id, 40), (B.shard_id, 30)}


# ---- exactly once


def test_the_time_of_a_commit_that_was_there_goes_to_the_next(store: OutputStore) -> None:
    outcomes(committer(store), shard_table(A, 3))
    clock = ActorClock(gpus_per_actor=1)
    clock.look(1)
    one = Committer(store, RECORD, [A, B], max_reject_rate=0.05, clock=clock)
    found = outcomes(one, shard_table(A, 3))
    assert [outcome.is_ours for outcome in found] == [False]
    assert clock.open.gpu_held_s == clock.total.gpu_held_s > 0
    two = Committer(store, RECORD, [A, B], max_reject_rate=0.05, clock=clock)
    [committed] = outcomes(two, shard_table(B, 3))
    assert committed.actor_time == clock.total
    assert Ledger(store).summaries()[B.shard_id] == committed
    assert "actor_time" not in file_metadata(store.get(annotations_key(A.shard_id)).data)


def test_the_second_commit_of_a_shard_is_discarded(store: OutputStore) -> None:
    outcomes(committer(store), shard_table(A, 3))
    before = store.get(annotations_key(A.shard_id))
    [late] = outcomes(committer(store), shard_table(A, 3, rejected=1))
    assert late.is_ours is False
    assert store.get(annotations_key(A.shard_id)) == before


def test_of_many_that_commit_at_once_one_wins(store: OutputStore) -> None:
    start = Barrier(6)

    def race(_: int) -> ShardOutcome:
        one = committer(store)
        one.add(shard_table(A, 3).slice(0, 3))
        start.wait()
        [outcome] = outcomes(one, shard_table(A, 3))
        return outcome

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(race, range(6)))
    assert sorted(outcome.is_ours for outcome in found) == [False] * 5 + [True]
    assert objects(store) == [annotations_key(A.shard_id)]


def test_a_shard_that_is_sent_again_after_its_commit_is_ignored(local: OutputStore) -> None:
    one = committer(local)
    assert one.add(shard_table(A, 3)) == 3
    assert one.add(shard_table(A, 3)) == 0
    assert one.add(annotated_table([annotated_row(A, 7)])) == 0
    assert len(list(one.close())) == 1


def test_outcomes_come_as_they_are_ready(
    local: OutputStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committing, "_MAX_WAITING", 0)
    one = committer(local)
    assert list(one.finished()) == []
    one.add(shard_table(A, 3))
    assert one.is_full
    found = list[ShardOutcome]()
    wait_for(lambda: found.extend(one.finished()) or bool(found))
    assert [outcome.shard_id for outcome in found] == [A.shard_id]
    assert not one.is_full
    assert list(one.close()) == []


# ---- what is not committed


def test_a_shard_that_stays_incomplete_fails_and_may_be_tried_again(local: OutputStore) -> None:
    found = outcomes(committer(local), shard_table(A, 3).slice(1), shard_table(B, 2))
    failed = [outcome for outcome in found if isinstance(outcome, ShardFailed)]
    assert [(f.shard_id, f.error_type, f.retriable) for f in failed] == [
        (A.shard_id, "incomplete", True)
    ]
    assert objects(local) == [annotations_key(B.shard_id)]


@pytest.mark.parametrize("retriable", [True, False])
def test_a_shard_that_could_not_be_read_fails_as_its_reader_says(
    local: OutputStore, retriable: bool
) -> None:
    end = {"error_type": "storage_error", "message": "no network", "retriable": retriable}
    [failed] = outcomes(committer(local), shard_table(A, 3, **end))
    assert failed == ShardFailed(shard_id=A.shard_id, **end)
    assert objects(local) == []


@pytest.mark.parametrize(
    ("samples", "rejected", "rate", "is_committed"),
    [
        (49, 49, 0.05, True),  # too few to say
        (50, 2, 0.05, True),
        (50, 3, 0.05, False),
        (60, 3, 0.05, True),  # exactly 5 %
        (100, 5, 0.05, True),
        (100, 6, 0.05, False),
        (100, 29, 0.29, True),  # 0.29 * 100 is less than 29
        (50, 1, 0, False),
        (50, 50, 1, True),
    ],
)
def test_a_shard_with_too_many_rejects_fails(
    local: OutputStore, samples: int, rejected: int, rate: float, is_committed: bool
) -> None:
    one = committer(local, max_reject_rate=rate)
    [outcome] = outcomes(one, shard_table(A, samples, rejected))
    assert isinstance(outcome, Committed) == is_committed
    if not is_committed:
        assert (outcome.error_type, outcome.retriable) == ("too_many_rejects", False)
        assert f"{rejected} of {samples} samples rejected" in outcome.message
        assert f"{rejected}x corrupt_image" in outcome.message
        assert objects(local) == []


def test_a_store_that_fails_fails_the_shard_for_now(local: OutputStore) -> None:
    arm("local_store.written=raise:builtins.OSError")
    [failed] = outcomes(committer(local), shard_table(A, 3))
    arm("")
    assert (failed.error_type, failed.retriable) == ("storage_error", True)
    assert objects(local) == []
    [committed] = outcomes(committer(local), shard_table(A, 3))
    assert committed.is_ours


def test_a_file_that_reads_back_wrongly_is_not_committed(
    local: OutputStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = ParquetWriter.write
    monkeypatch.setattr(ParquetWriter, "write", lambda self, table, *a: write(self, table[1:], *a))
    [failed] = outcomes(committer(local), shard_table(A, 3))
    assert failed.error_type == CorruptOutput.code
    assert objects(local) == []


def test_nothing_of_a_shard_is_visible_before_it_is_complete(local: OutputStore) -> None:
    one = committer(local)
    table = shard_table(A, 60, rejected=2)
    for row in range(table.num_rows - 1):
        one.add(table.slice(row, 1))
    assert list(chain(one.finished(), objects(local))) == []
    assert (one.open_shards, one.puts) == (1, 0)
    one.add(table.slice(table.num_rows - 1))
    assert (one.open_shards, one.puts) == (0, 1)
    [committed] = one.close()
    assert committed.is_ours
    assert one.puts == 0
