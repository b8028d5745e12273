"""The shards that a run finds done, to do or given up; or those that `retry` repeats."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset.commit import ShardFailed, open_commit, read_rejects
from pipeline.dataset.dataset import StoredDataset
from pipeline.dataset.ledger import MAX_ATTEMPTS, READERS, Failure, Ledger
from pipeline.dataset.shards import Shard
from pipeline.spec.job import RetryOptions
from pipeline.storage import OutputStore

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """The shards of a run: to do, done, and failed too often for another attempt."""

    wanted: tuple[Shard, ...]
    left: tuple[Shard, ...]
    committed: frozenset[str]
    failures: dict[str, Failure]  # by shard id, with any number of attempts
    given_up: tuple[ShardFailed, ...]

    @classmethod
    def of(cls, wanted: Sequence[Shard], ledger: Ledger) -> "Pending":
        committed = ledger.committed()
        failures = ledger.failed(committed)
        given_up = {
            shard_id: _as_failed(failure)
            for shard_id, failure in failures.items()
            if failure.attempts >= MAX_ATTEMPTS
        }
        closed = committed | given_up.keys()
        return cls(
            wanted=tuple(wanted),
            left=tuple(shard for shard in wanted if shard.shard_id not in closed),
            committed=frozenset(s.shard_id for s in wanted if s.shard_id in committed),
            failures=failures,
            given_up=tuple(given_up[s.shard_id] for s in wanted if s.shard_id in given_up),
        )

    @classmethod
    def again(cls, shards: Sequence[Shard]) -> "Pending":
        """Return all of `shards` as to do, without regard to the storage."""
        return cls(
            wanted=tuple(shards),
            left=tuple(shards),
            committed=frozenset(),
            failures={},
            given_up=(),
        )


def _as_failed(failure: Failure) -> ShardFailed:
    return ShardFailed(
        shard_id=failure.shard_id,
        error_type=failure.error_type,
        message=f"{failure.message} (given up after {failure.attempts} attempts)",
        retriable=False,
    )


def shards_to_retry(dataset: StoredDataset, options: RetryOptions) -> list[Shard]:
    """Return the shards to retry, in the order of the plan, and reset their attempts.

    The caller holds the lease. Raises CorruptOutput and ObjectMissing for rejects files that cannot
    be read.
    """
    ledger = Ledger(dataset.store)
    if options.samples:
        return _with_rejects(dataset, ledger, options.error_type)
    failed = ledger.failed(ledger.committed())
    for shard_id in failed:
        ledger.forget_failure(shard_id)
    return [shard for shard in dataset.plan.shards if shard.shard_id in failed]


def _with_rejects(dataset: StoredDataset, ledger: Ledger, error_type: str | None) -> list[Shard]:
    commits = ledger.summaries()
    rejecting = {commit.shard_id for commit in commits.values() if commit.rejected}
    shards = [shard for shard in dataset.plan.shards if shard.shard_id in rejecting]
    with ThreadPoolExecutor(READERS) as pool:
        rejects = list(pool.map(lambda shard: _rejects(dataset.store, shard), shards))
    parts = [_part(shard, of, error_type) for shard, of in zip(shards, rejects, strict=True)]
    chosen = [part for part in parts if part.only]
    if error_type is not None and not chosen:
        reasons = {reason for of in rejects for reason in of["error_type"].unique().to_pylist()}
        there = ", ".join(sorted(reasons)) or "none"
        _log.warning("no sample is rejected as %s; the reasons are: %s", error_type, there)
    return chosen


def _rejects(store: OutputStore, shard: Shard) -> pa.Table:
    with open_commit(store, shard.shard_id) as commit:
        key = commit.footer.rejects
    return read_rejects(store, key).select(["index", "error_type", "retriable"])


def _part(shard: Shard, rejects: pa.Table, error_type: str | None) -> Shard:
    chosen = pc.equal(rejects["error_type"], error_type) if error_type else rejects["retriable"]
    return replace(shard, only=tuple(sorted(set(rejects.filter(chosen)["index"].to_pylist()))))
