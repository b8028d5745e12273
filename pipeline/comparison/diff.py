"""The differences between two datasets, such as those of two models or two versions of a model."""

from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from heapq import heappush, heappushpop
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa

from pipeline.comparison.matching import Comparison, compare
from pipeline.comparison.pairing import COMPARED, Pair, Pairing
from pipeline.comparison.shifts import TaskCounts, TaskDifferences
from pipeline.concurrency import in_order
from pipeline.dataset.commit import open_commit
from pipeline.dataset.dataset import StoredDataset
from pipeline.dataset.ledger import Ledger
from pipeline.errors import SpecError
from pipeline.progress import ObserveShards
from pipeline.storage import OutputStore

LEAST_IOU = 0.5
_READERS = 4
_SHARDS_AHEAD = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """The differences between the datasets at `a` and `b`.

    `joined_by_place` counts annotations whose images have other bytes, but the same place in the
    same shard. `share_different` is the share of all annotations that have another caption, have a
    box that is not the same, or are in one dataset only.
    """

    a: str
    b: str
    joined: int
    joined_by_place: int
    only_in_a: int
    only_in_b: int
    share_different: float
    tasks: dict[str, TaskDifferences]


@dataclass(frozen=True, slots=True, kw_only=True)
class Diff:
    """The differences as figures, and the largest ones, the largest first."""

    figures: Differences
    largest: tuple[Comparison, ...]


def diff(
    a: StoredDataset,
    b: StoredDataset,
    *,
    least_iou: float = LEAST_IOU,
    count: int = 0,
    observe: ObserveShards = lambda done, of: None,
) -> Diff:
    """Compare all commits of two datasets, and keep the `count` annotations that differ most.

    Rows that cannot be joined shard by shard are written to a temporary file. Raises SpecError if
    `least_iou` is not in [0, 1] or the datasets have no annotation in common, PipelineError if a
    commit cannot be read.
    """
    if not 0 <= least_iou <= 1:
        raise SpecError(f"the least IoU of matched boxes is {least_iou}; give one from 0 to 1")
    counts = defaultdict[str, TaskCounts](TaskCounts)
    largest = _Largest(count)
    by_place = 0
    with (
        TemporaryDirectory(prefix="kosmos2-diff-") as folder,
        closing(Pairing(Path(folder) / "rows.duckdb")) as pairing,
    ):
        for pair in _pairs(a, b, pairing, observe):
            found = compare(pair, least_iou)
            counts[pair.a["task"]].add(found)
            largest.add(found)
            by_place += not pair.has_same_bytes
        only_in_a, only_in_b = pairing.alone("a"), pairing.alone("b")
    if not counts:
        raise SpecError(
            f"{a.store.uri} and {b.store.uri} have no annotation of the same image and task in "
            "common; compare datasets of the same images with the same --task"
        )
    tasks = {
        task: counts[task].result(
            only_in_a=only_in_a.get(task, 0), only_in_b=only_in_b.get(task, 0)
        )
        for task in sorted({*counts, *only_in_a, *only_in_b})
    }
    return Diff(
        figures=_sum_up(a.store.uri, b.store.uri, tasks, by_place), largest=largest.in_order()
    )


def _sum_up(a: str, b: str, tasks: dict[str, TaskDifferences], by_place: int) -> Differences:
    joined = sum(task.joined for task in tasks.values())
    only_in_a = sum(task.only_in_a for task in tasks.values())
    only_in_b = sum(task.only_in_b for task in tasks.values())
    different = sum(task.changed for task in tasks.values()) + only_in_a + only_in_b
    return Differences(
        a=a,
        b=b,
        joined=joined,
        joined_by_place=by_place,
        only_in_a=only_in_a,
        only_in_b=only_in_b,
        share_different=different / (joined + only_in_a + only_in_b),
        tasks=tasks,
    )


def _pairs(
    a: StoredDataset, b: StoredDataset, pairing: Pairing, observe: ObserveShards
) -> Iterator[Pair]:
    in_a, in_b = Ledger(a.store).committed(), Ledger(b.store).committed()
    shard_ids = sorted({*in_a, *in_b})

    def read(shard_id: str) -> tuple[pa.Table, pa.Table]:
        return (
            _rows(a.store, shard_id) if shard_id in in_a else COMPARED.empty_table(),
            _rows(b.store, shard_id) if shard_id in in_b else COMPARED.empty_table(),
        )

    with ThreadPoolExecutor(_READERS, thread_name_prefix="diff") as pool:
        calls = (partial(read, shard_id) for shard_id in shard_ids)
        for done, tables in enumerate(in_order(pool, calls, ahead=_SHARDS_AHEAD), start=1):
            yield from pairing.of_shard(*tables)
            observe(done, len(shard_ids))
    yield from pairing.rest()


def _rows(store: OutputStore, shard_id: str) -> pa.Table:
    with open_commit(store, shard_id) as commit:
        return commit.parquet.read(columns=COMPARED.names).select(COMPARED.names)


class _Largest:
    """The comparisons with the largest differences so far; of equal ones, the first."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._found: list[tuple[float, int, Comparison]] = []
        self._number = 0

    def add(self, found: Comparison) -> None:
        if not self._count or found.is_same:
            return
        self._number -= 1  # unique, and a later one is smaller
        item = (found.size, self._number, found)
        if len(self._found) < self._count:
            heappush(self._found, item)
        else:
            heappushpop(self._found, item)

    def in_order(self) -> tuple[Comparison, ...]:
        return tuple(
            found for _, _, found in sorted(self._found, key=lambda x: x[:2], reverse=True)
        )
