"""Sizes of tables and tasks."""

import pyarrow as pa
import pytest

from pipeline.dataset.shards import Shard, shard_of, shard_table
from pipeline.execution import read_task
from pipeline.execution.read_task import READER_ATTEMPTS, ReadShard, tables_of_size
from pipeline.execution.sizes import (
    ROW_BYTES,
    calls_per_actor,
    rows_per_table,
    shards_per_task,
)
from pipeline.spec.job import JobSpec
from pipeline.storage import ObjectInfo
from tests.support.tars import a_shard

GIB = 1 << 30


@pytest.mark.parametrize(
    ("slots", "store_gib", "rows"),
    [
        (1, 100, 64),  # small machines keep small tables
        (16, 100, 64),
        (64, 100, 256),
        (256, 100, 810),  # 128 MB
        (512, 100, 810),
        (256, 1, 405),  # a store of one GiB for each actor
        (256, 0, 64),
    ],
)
def test_tables_are_as_large_as_slots_blocks_and_the_store_allow(
    slots: int, store_gib: float, rows: int
) -> None:
    assert rows_per_table(slots, store_gib * GIB) == rows
    assert rows <= 64 or rows * ROW_BYTES <= min(128 << 20, store_gib * GIB / 16)


@pytest.mark.parametrize(("slots", "rows"), [(16, 64), (256, 810), (256, 64), (512, 405)])
def test_tables_beside_one_that_finishes_fill_the_slots_twice(slots: int, rows: int) -> None:
    assert 2 * slots <= (calls_per_actor(slots, rows) - 1) * rows < 2 * slots + rows


def shards(count: int, mb: float) -> list[Shard]:
    size = round(mb * (1 << 20))
    return [
        shard_of(ObjectInfo(uri=f"s3://in/{number}.tar", size_bytes=size, etag="e"))
        for number in range(count)
    ]


@pytest.mark.parametrize(
    ("count", "mb", "cpus", "together"),
    [
        (10_000, 10, 100, 25),  # as many as 256 MB hold
        (10_000, 100, 100, 2),
        (10_000, 1000, 100, 1),
        (10_000, 0, 10, 64),
        (1000, 1, 100, 2),  # enough tasks for all CPUs
        (3, 1, 2, 1),
    ],
)
def test_a_task_reads_several_small_shards(
    count: int, mb: float, cpus: float, together: int
) -> None:
    assert shards_per_task(shards(count, mb), cpus) == together


@pytest.mark.parametrize(
    ("lengths", "rows", "found"),
    [
        ([3, 3], 5, [5, 1]),
        ([12, 1], 5, [5, 5, 3]),
        ([1, 0, 1, 2, 1], 5, [5]),
        ([0], 5, []),
        ([5, 5], 5, [5, 5]),
    ],
)
def test_tables_are_joined_and_cut_in_order(
    lengths: list[int], rows: int, found: list[int]
) -> None:
    whole = pa.table({"x": list(range(sum(lengths)))})
    starts = [sum(lengths[:number]) for number in range(len(lengths))]
    tables = [whole.slice(at, length) for at, length in zip(starts, lengths, strict=True)]
    joined = list(tables_of_size(tables, rows))
    assert [table.num_rows for table in joined] == found
    assert [x for table in joined for x in table["x"].to_pylist()] == whole["x"].to_pylist()
    assert all(table["x"].num_chunks == 1 for table in joined)


def test_a_task_of_several_shards_leaves_them_to_the_next_pass_instead_of_giving_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One of them kills the reader; each is read alone then."""
    monkeypatch.setattr(read_task, "task_attempt", lambda: READER_ATTEMPTS)
    read = ReadShard(JobSpec(input="in", output="out"))
    assert list(read(shard_table([a_shard("a"), a_shard("b")]))) == []
    [alone] = read(shard_table([a_shard("a")]))
    assert alone["end"][0].as_py()["error_type"] == "worker_died"
