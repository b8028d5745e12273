"""Two shards, and a committer for their rows."""

from typing import Any

import pyarrow as pa

from pipeline.dataset.shards import Shard
from pipeline.driver.committer import Committer
from pipeline.driver.finishing import ShardOutcome
from pipeline.spec.job import JobSpec
from pipeline.storage import OutputStore
from tests.support.tars import (
    a_shard,
    annotated_row,
    annotated_table,
    end_row,
    job_record,
    rejected_row,
)

RECORD = job_record(JobSpec(input="in", output="out", task=("brief",)))
A, B = a_shard("a"), a_shard("b")


def committer(store: OutputStore, *, max_reject_rate: float = 0.05) -> Committer:
    return Committer(store, RECORD, [A, B], max_reject_rate=max_reject_rate)


def shard_table(shard: Shard, samples: int, rejected: int = 0, **end: Any) -> pa.Table:
    """The first `rejected` samples are rejected, the others annotated."""
    return annotated_table(
        [
            *(rejected_row(shard, index) for index in range(rejected)),
            *(annotated_row(shard, index) for index in range(rejected, samples)),
            end_row(shard, samples, **end),
        ]
    )


def outcomes(committer: Committer, *tables: pa.Table) -> list[ShardOutcome]:
    for table in tables:
        committer.add(table)
    return list(committer.close())
