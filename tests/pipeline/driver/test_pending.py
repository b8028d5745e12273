"""What `retry` does again."""

from pathlib import Path

import pytest

from pipeline.dataset.commit import ShardFailed
from pipeline.dataset.dataset import StoredDataset
from pipeline.dataset.ledger import Ledger
from pipeline.dataset.shards import freeze_plan
from pipeline.driver.committer import Committer
from pipeline.driver.pending import shards_to_retry
from pipeline.errors import ObjectMissing
from pipeline.spec.job import RetryOptions
from pipeline.storage import open_output
from tests.support.tars import (
    a_shard,
    annotated_row,
    annotated_table,
    end_row,
    job_record,
    rejected_row,
)

SHARDS = {name: a_shard(name) for name in "abcd"}
TASKS = ("brief", "detailed")


@pytest.fixture
def job(tmp_path: Path) -> StoredDataset:
    """Shard a holds rejects, b has none, c failed, d was never tried."""
    store = open_output(str(tmp_path / "out"))
    plan = freeze_plan(store, list(SHARDS.values()))
    job = StoredDataset(store=store, plan=plan, record=job_record())
    commit(job, "a", {1: "corrupt_image", 3: "non_finite_logits", 4: "non_finite_logits"})
    commit(job, "b", {})
    for _ in range(3):
        Ledger(store).record_failure(failure("c"))
    return job


def commit(job: StoredDataset, name: str, rejected: dict[int, str]) -> None:
    """What a model fails at may succeed another time."""
    shard, rows = SHARDS[name], []
    for index in range(6):
        for task in TASKS:
            if index in rejected:
                row = rejected_row(shard, index, task, rejected[index])
                row["rejected"]["retriable"] = rejected[index] == "non_finite_logits"
            else:
                row = annotated_row(shard, index, task)
            rows.append(row)
    committer = Committer(job.store, job.record, [shard], max_reject_rate=1)
    committer.add(annotated_table([*rows, end_row(shard, 6)]))
    list(committer.close())


def failure(name: str) -> ShardFailed:
    return ShardFailed(shard_id=SHARDS[name].shard_id, error_type="x", message="", retriable=False)


def chosen(job: StoredDataset, **options: object) -> dict[str, object]:
    names = {shard.shard_id: name for name, shard in SHARDS.items()}
    found = shards_to_retry(job, RetryOptions.model_validate(options))
    return {names[shard.shard_id]: shard.only for shard in found}


def test_failed_shards_are_done_again_from_the_first_attempt(job: StoredDataset) -> None:
    assert chosen(job) == {"c": None}
    assert Ledger(job.store).failed(set()) == {}


def test_a_failure_of_a_committed_shard_is_over(job: StoredDataset) -> None:
    Ledger(job.store).record_failure(failure("b"))
    assert chosen(job) == {"c": None}


@pytest.mark.parametrize(
    ("error_type", "expected"),
    [
        (None, {"a": (3, 4)}),
        ("corrupt_image", {"a": (1,)}),
        ("non_finite_logits", {"a": (3, 4)}),
        ("another", {}),
    ],
)
def test_rejected_samples_are_chosen_by_their_reason(
    job: StoredDataset, error_type: str | None, expected: dict[str, tuple[int, ...]]
) -> None:
    assert chosen(job, samples=True, error_type=error_type) == expected
    assert Ledger(job.store).failed(set()) != {}


def test_rejects_that_are_gone_are_named(job: StoredDataset) -> None:
    [name] = job.store.list("rejected/")
    job.store.delete(name)
    with pytest.raises(ObjectMissing, match=name):
        chosen(job, samples=True)


def test_a_reason_that_no_rejection_has_is_told(
    job: StoredDataset, caplog: pytest.LogCaptureFixture
) -> None:
    assert chosen(job, samples=True, error_type="worker_dead") == {}
    [record] = caplog.records
    assert record.getMessage() == (
        "no sample is rejected as worker_dead; the reasons are: corrupt_image, non_finite_logits"
    )
