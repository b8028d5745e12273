"""What `retry` does again: failed shards as a whole, or rejected samples of committed shards."""

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.dataset.commit import read_rejects
from pipeline.dataset.dataset import Dataset
from pipeline.dataset.layout import annotations_key
from pipeline.dataset.ledger import READERS, Ledger
from pipeline.dataset.shards import Shard
from pipeline.parquet import footer_metadata, opened
from pipeline.spec.job import RetryOptions
from pipeline.storage import OutputStore

_log = logging.getLogger(__name__)


def shards_to_retry(job: Dataset, options: RetryOptions) -> list[Shard]:
    """In the order of the plan. The caller holds the lease: attempts are reset here.

    Raises CorruptOutput and ObjectMissing for files of rejects that cannot be read.
    """
    ledger = Ledger(job.store)
    if options.samples:
        return _with_rejects(job, ledger, options.error_type)
    failed = ledger.failed(ledger.committed())
    for shard_id in failed:
        ledger.forget_failure(shard_id)
    return [shard for shard in job.plan.shards if shard.shard_id in failed]


def _with_rejects(job: Dataset, ledger: Ledger, error_type: str | None) -> list[Shard]:
    commits = ledger.summaries()
    rejecting = {commit.shard_id for commit in commits.values() if commit.rejected}
    shards = [shard for shard in job.plan.shards if shard.shard_id in rejecting]
    with ThreadPoolExecutor(READERS) as pool:
        rejects = list(pool.map(lambda shard: _rejects(job.store, shard), shards))
    parts = [_part(shard, of, error_type) for shard, of in zip(shards, rejects, strict=True)]
    chosen = [part for part in parts if part.only]
    if error_type is not None and not chosen:
        reasons = {reason for of in rejects for reason in of["error_type"].unique().to_pylist()}
        _log.warning(
            "no sample is rejected as %s; there are: %s",
            *(error_type, ", ".join(sorted(reasons)) or "none"),
        )
    return chosen


def _rejects(store: OutputStore, shard: Shard) -> pa.Table:
    with opened(store, annotations_key(shard.shard_id)) as file:
        name = footer_metadata(pq.read_metadata(file))["rejects"]
    return read_rejects(store, name).select(["index", "error_type", "retriable"])


def _part(shard: Shard, rejects: pa.Table, error_type: str | None) -> Shard:
    chosen = pc.equal(rejects["error_type"], error_type) if error_type else rejects["retriable"]
    return replace(shard, only=tuple(sorted(set(rejects.filter(chosen)["index"].to_pylist()))))
