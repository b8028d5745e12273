"""Parts of a plan."""

import itertools

import pytest

from pipeline.dataset.shards import ShardPlan
from pipeline.spec.partition import WHOLE, Partition
from tests.support.tars import a_shard

SHARDS = tuple(a_shard(f"part-{number:04d}") for number in range(600))
PLAN = ShardPlan(shards=SHARDS, generations=1)
FEW = [Partition(index=index, of=of) for of in (1, 2, 3, 4, 6) for index in range(of)]


@pytest.mark.parametrize("of", [1, 2, 3, 7, 64])
def test_each_shard_is_in_one_part(of: int) -> None:
    parts = [PLAN.part(Partition(index=index, of=of)) for index in range(of)]
    assert sorted(s.uri for part in parts for s in part) == [s.uri for s in SHARDS]
    assert all(list(part) == sorted(part, key=lambda shard: shard.uri) for part in parts)


def test_parts_are_about_as_large() -> None:
    sizes = [len(PLAN.part(Partition(index=index, of=4))) for index in range(4)]
    assert 120 < min(sizes) <= max(sizes) < 180


def test_a_longer_plan_moves_no_shard() -> None:
    part = Partition(index=1, of=3)
    before = ShardPlan(shards=SHARDS[:100], generations=1).part(part)
    assert PLAN.part(part)[: len(before)] == before


def test_a_part_is_the_same_everywhere_and_for_ever() -> None:
    """The numbers are those of `sha256sum`: its first 16 digits, modulo 5."""
    ids = [f"part-{number}-3f2a9c0d11ab" for number in range(8)]
    parts = [next(i for i in range(5) if Partition(index=i, of=5).holds(x)) for x in ids]
    assert parts == [1, 0, 2, 2, 2, 2, 4, 3]


def test_parts_overlap_where_a_shard_is_in_both() -> None:
    parts = {part: set(PLAN.part(part)) for part in FEW}
    for one, other in itertools.product(FEW, FEW):
        assert one.overlaps(other) == bool(parts[one] & parts[other]), (one, other)


def test_the_whole_overlaps_every_part() -> None:
    assert all(WHOLE.overlaps(part) for part in FEW)


@pytest.mark.parametrize("text", ["0/1", "3/4", "11/12"])
def test_a_part_is_said_as_it_is_written(text: str) -> None:
    assert str(Partition.parse(text)) == text


@pytest.mark.parametrize("text", ["", "1", "4/4", "0/0", "-1/4", "1/2/3", "1 /2", "a/b", "1.0/2"])
def test_what_is_no_part_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="of four parts, the first is 0/4"):
        Partition.parse(text)
