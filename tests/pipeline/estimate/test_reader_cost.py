"""What a reader costs, with a clock that each part moves on by a known time."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.dataset.shards import Shard
from pipeline.errors import InputChanged
from pipeline.estimate import reader_cost as measured
from pipeline.estimate.reader_cost import ReaderCost, reader_cost
from pipeline.reading.sample_reader import SampleReader
from pipeline.storage import InputStore
from tests.support.tar_shards import BROKEN, tar_shard
from tests.support.tars import pictures, tar

FETCH_S, DECODE_S, RESIZE_S, TABLE_S = 4.0, 3.0, 2.0, 1.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=0.0)
    clock.thread_time = clock.process_time = lambda: clock.now
    monkeypatch.setattr(measured, "time", clock)

    def takes(name: str, seconds: float) -> None:
        real = getattr(measured, name)

        def slow(*arguments: Any, **options: Any) -> Any:
            clock.now += seconds
            return real(*arguments, **options)

        monkeypatch.setattr(measured, name, slow)

    takes("read_raster", DECODE_S)
    takes("to_square", RESIZE_S)
    takes("sample_row", TABLE_S)
    return clock


class SlowSamples(SampleReader):
    """Takes `FETCH_S` for each sample."""

    __slots__ = ()
    clock: SimpleNamespace

    def read(self, shard: Shard, start: int = 0) -> Iterator[Any]:  # type: ignore[override]
        for found in SampleReader.read(self, shard, start):
            SlowSamples.clock.now += FETCH_S
            yield found


def slow_samples(clock: SimpleNamespace) -> SampleReader:
    SlowSamples.clock = clock
    return SlowSamples(store=InputStore())


def test_each_part_is_what_was_spent_in_it(tmp_path: Path, clock: SimpleNamespace) -> None:
    shard = tar_shard(tmp_path, tar(pictures(3)))
    cost = reader_cost(slow_samples(clock), [shard, shard], images=100)
    expected = ReaderCost(fetch_ms=4000, decode_ms=3000, resize_ms=2000, table_ms=1000)
    assert cost == expected
    assert cost.total_ms == 10_000


def test_no_more_images_are_read_than_wanted(tmp_path: Path, clock: SimpleNamespace) -> None:
    shard = tar_shard(tmp_path, tar(pictures(3)))
    cost = reader_cost(slow_samples(clock), [shard], images=2)
    assert cost is not None
    assert clock.now == 2 * 10  # cost of two images, and not of the third


def test_a_broken_image_costs_its_decoding_only(tmp_path: Path, clock: SimpleNamespace) -> None:
    cost = reader_cost(slow_samples(clock), [tar_shard(tmp_path, tar(BROKEN))], images=9)
    assert cost == ReaderCost(fetch_ms=4000, decode_ms=3000, resize_ms=0, table_ms=0)


def test_without_images_there_is_no_cost(tmp_path: Path) -> None:
    assert reader_cost(SampleReader(store=InputStore()), [], images=9) is None
    empty = tar_shard(tmp_path, tar([]))
    assert reader_cost(SampleReader(store=InputStore()), [empty], images=9) is None


def test_an_input_that_changed_is_named(tmp_path: Path) -> None:
    shard = tar_shard(tmp_path, tar(pictures(3)))
    Path(shard.uri.removeprefix("file://")).write_bytes(tar(pictures(4)))
    with pytest.raises(InputChanged):
        reader_cost(SampleReader(store=InputStore()), [shard], images=9)
