"""Shards are finished wherever, and again if that process died."""

from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from pipeline.dataset.commit import Committed, ShardFailed
from pipeline.dataset.layout import annotations_key
from pipeline.driver import committer as committing
from pipeline.driver.committer import Committer
from pipeline.driver.finishing import INCOMPLETE, Finisher, Order
from pipeline.errors import CorruptOutput, WorkerDied
from pipeline.execution.stored_tables import StoredTable, _decoded, block_of
from pipeline.storage import OutputStore
from tests.support.committing import RECORD, A, B, committer, outcomes, shard_table
from tests.support.tars import a_shard, annotated_row, annotated_table, end_row, rejected_row

ORDER = Order(shard=A, commit_id="c" * 32)


def finisher(store: OutputStore) -> Finisher:
    return Finisher(store=store, record=RECORD)


def test_a_shard_that_is_finished_again_is_the_same_commit(store: OutputStore) -> None:
    """Its first process may have died right after the PUT."""
    tables = [shard_table(A, 60, rejected=2)]
    [first] = finisher(store)([ORDER], tables)
    stored = store.get(annotations_key(A.shard_id))
    [again] = finisher(store)([ORDER], tables)
    assert isinstance(again, Committed)
    assert again.is_ours
    assert again == first
    assert store.get(annotations_key(A.shard_id)) == stored
    [other] = finisher(store)([replace(ORDER, commit_id="d" * 32)], tables)
    assert isinstance(other, Committed)
    assert not other.is_ours


def test_a_replaced_commit_is_not_replaced_again(store: OutputStore) -> None:
    finisher(store)([ORDER], [shard_table(A, 60, rejected=2)])
    order = Order(shard=replace(A, only=(0, 1)), commit_id="d" * 32)
    tables = [annotated_table([annotated_row(A, 0), rejected_row(A, 1), end_row(A, 60)])]
    [first] = finisher(store)([order], tables)
    assert isinstance(first, Committed)
    assert (first.annotated, first.rejected, first.is_ours) == (59, 1, True)
    stored = store.get(annotations_key(A.shard_id))
    [again] = finisher(store)([order], tables)
    assert again == first
    assert store.get(annotations_key(A.shard_id)) == stored


def test_rows_that_are_not_those_that_the_driver_saw_are_no_commit(local: OutputStore) -> None:
    """Ray may have made a lost table again."""
    [failed] = finisher(local)([ORDER], [shard_table(A, 3).slice(1)])
    assert isinstance(failed, ShardFailed)
    assert (failed.error_type, failed.retriable) == (INCOMPLETE, True)
    assert local.list("annotations") == []


def test_the_driver_needs_the_keys_of_rows_only(local: OutputStore) -> None:
    table = pa.concat_tables([shard_table(A, 60, rejected=2), shard_table(B, 4)])
    block = block_of(table)
    keys = _decoded(block, "keys")
    assert [field.name for field in keys["annotated"].type] == ["index", "task"]
    assert _decoded(block, "rows").equals(table)
    sent = list[list[pa.Table]]()

    def call(work: Any, arguments: Any, stored: Any) -> Future[Any]:
        sent.append([_decoded(each.ref, "rows") for each in stored])
        found = Future[Any]()
        found.set_result(work(arguments, sent[-1]))
        return found

    one = Committer(local, RECORD, [A, B], max_reject_rate=0.05, call=call)
    assert one.add(keys, block) == 64
    found = {outcome.shard_id: outcome for outcome in one.close()}
    assert {type(outcome) for outcome in found.values()} == {Committed}
    assert len(sent) == 1  # both in one call


def test_another_process_is_started_after_an_answer_only(local: OutputStore) -> None:
    """Shards wait for the first one while it starts: to start another takes longer."""
    third = a_shard("third")
    begun, answers = list[str](), list[Future[Any]]()

    def call(work: Any, orders: Any, stored: Any) -> Future[Any]:
        begun.extend(order.shard.shard_id for order in orders)
        answers.append(Future[Any]())
        return answers[-1]

    one = Committer(local, RECORD, [A, B, third], max_reject_rate=0.05, call=call)
    one.add(shard_table(A, 3))
    one.add(shard_table(B, 3))
    assert begun == [A.shard_id]
    answers[0].set_result([ShardFailed.by(A.shard_id, CorruptOutput("unreadable"))])
    assert len(list(one.finished())) == 1
    assert begun == [A.shard_id, B.shard_id]
    one.add(shard_table(third, 3))
    assert begun == [A.shard_id, B.shard_id, third.shard_id]


def test_reasons_are_told_from_the_keys(local: OutputStore) -> None:
    keys = StoredTable(_decoded(block_of(shard_table(A, 60, rejected=50)), "keys")).table
    [failed] = outcomes(committer(local), keys)
    assert isinstance(failed, ShardFailed)
    assert failed.error_type == "too_many_rejects"
    assert "50x corrupt_image" in failed.message


def test_shards_whose_process_died_too_often_may_be_tried_again(local: OutputStore) -> None:
    def call(*_: Any) -> Future[Any]:
        found = Future[Any]()
        found.set_exception(WorkerDied("its process died 4 times"))
        return found

    one = Committer(local, RECORD, [A, B], max_reject_rate=0.05, call=call)
    one.add(shard_table(A, 3))
    [failed] = one.finished()
    assert isinstance(failed, ShardFailed)
    assert (failed.error_type, failed.retriable) == ("worker_died", True)


def test_a_call_that_does_not_end_is_left_after_a_while(
    local: OutputStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cluster may have no process for it any more."""
    monkeypatch.setattr(committing, "_LAST_CALLS_S", 0.01)
    one = Committer(local, RECORD, [A, B], max_reject_rate=0.05, call=lambda *_: Future[Any]())
    one.add(shard_table(A, 3))
    [failed] = one.close()
    assert isinstance(failed, ShardFailed)
    assert (failed.error_type, failed.retriable) == (INCOMPLETE, True)
