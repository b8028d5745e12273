"""What `retry` does again: failed shards as a whole, or rejected samples of committed shards."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.committer import annotations_key
from pipeline.files import footer_metadata, reading
from pipeline.job import Job
from pipeline.ledger import READERS, Ledger
from pipeline.rewriting import read_rejects
from pipeline.shards import Shard
from pipeline.spec import RetryOptions
from pipeline.storage import OutputStore


def shards_to_retry(job: Job, options: RetryOptions) -> list[Shard]:
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


def _with_rejects(job: Job, ledger: Ledger, error_type: str | None) -> list[Shard]:
    commits = ledger.summaries()
    rejecting = {commit.shard_id for commit in commits.values() if commit.rejected}
    shards = [shard for shard in job.plan.shards if shard.shard_id in rejecting]
    with ThreadPoolExecutor(READERS) as pool:
        found = pool.map(lambda shard: _rejected(job.store, shard, error_type), shards)
        return [part for part in found if part.only]


def _rejected(store: OutputStore, shard: Shard, error_type: str | None) -> Shard:
    key = annotations_key(shard.shard_id)
    with reading(key), store.open(key) as file:
        name = footer_metadata(pq.read_metadata(file))["rejects"]
    table = read_rejects(store, name)
    chosen = pc.equal(table["error_type"], error_type) if error_type else table["retriable"]
    return replace(shard, only=tuple(sorted(set(table.filter(chosen)["index"].to_pylist()))))
