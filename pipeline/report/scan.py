"""Everything committed, read once: shard by shard, batch by batch, in bounded memory."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from pipeline.concurrency import in_order
from pipeline.dataset.commit import Committed, open_commit, open_rejects
from pipeline.report import figures, reasons
from pipeline.report.figures import Figures
from pipeline.report.reasons import Reasons
from pipeline.storage import OutputStore

Observer = Callable[[int, int], None]  # shards read, of so many

_ROWS = 2048  # at a time
_READERS = 4
_SHARDS_AHEAD = 8


@dataclass(slots=True, kw_only=True)
class Scan:
    commits: list[Committed] = field(default_factory=list)
    figures: Figures = field(default_factory=Figures)
    reasons: Reasons = field(default_factory=Reasons)

    def merge(self, other: "Scan") -> None:
        self.commits += other.commits
        self.figures.merge(other.figures)
        self.reasons.merge(other.reasons)


def scan(
    store: OutputStore, shard_ids: list[str], observe: Observer = lambda done, of: None
) -> Scan:
    """Raises PipelineError where something committed cannot be read."""
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
        draws = figures.draws_of(shard_id)
        for rows in commit.parquet.iter_batches(_ROWS, columns=list(figures.COLUMNS)):
            found.figures.add(rows, shard_id, draws.random(rows.num_rows))
        found.commits.append(commit.footer.committed())
        rejects = commit.footer.rejects
    if rejects:
        _scan_rejects(store, rejects, shard_id, found.reasons)
    return found


def _scan_rejects(store: OutputStore, key: str, shard_id: str, found: Reasons) -> None:
    with open_rejects(store, key) as parquet:
        for rows in parquet.iter_batches(_ROWS, columns=list(reasons.COLUMNS)):
            found.add(rows, shard_id)
