"""A scan of all commits: shard by shard, batch by batch, in bounded memory."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from pipeline.concurrency import in_order
from pipeline.dataset.commit import Committed, open_commit, open_rejects
from pipeline.progress import ObserveShards
from pipeline.report.figures import FIGURE_COLUMNS, DatasetFigures, draws_of
from pipeline.report.reasons import REASON_COLUMNS, Reasons
from pipeline.storage import OutputStore

_ROWS = 2048  # rows per batch
_READERS = 4
_SHARDS_AHEAD = 8


@dataclass(slots=True, kw_only=True)
class Scan:
    commits: list[Committed] = field(default_factory=list)
    figures: DatasetFigures = field(default_factory=DatasetFigures)
    reasons: Reasons = field(default_factory=Reasons)

    def merge(self, other: "Scan") -> None:
        self.commits += other.commits
        self.figures.merge(other.figures)
        self.reasons.merge(other.reasons)


def scan(
    store: OutputStore, shard_ids: list[str], observe: ObserveShards = lambda done, of: None
) -> Scan:
    """Read all commits once. Raises PipelineError if one cannot be read."""
    total = Scan()
    calls = (partial(_scan_shard, store, shard_id) for shard_id in shard_ids)
    with ThreadPoolExecutor(_READERS, thread_name_prefix="report") as pool:
        for done, found in enumerate(in_order(pool, calls, ahead=_SHARDS_AHEAD), start=1):
            total.merge(found)
            observe(done, len(shard_ids))
    return total


def _scan_shard(store: OutputStore, shard_id: str) -> Scan:
    found = Scan()
    with open_commit(store, shard_id) as commit:
        draws = draws_of(shard_id)
        for rows in commit.parquet.iter_batches(_ROWS, columns=list(FIGURE_COLUMNS)):
            found.figures.add(rows, shard_id, draws.random(rows.num_rows))
        found.commits.append(commit.footer.committed())
        rejects = commit.footer.rejects
    if rejects:
        with open_rejects(store, rejects) as parquet:
            for rows in parquet.iter_batches(_ROWS, columns=list(REASON_COLUMNS)):
                found.reasons.add(rows, shard_id)
    return found
