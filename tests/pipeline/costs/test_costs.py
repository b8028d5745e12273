"""The costs of a dataset so far, and the estimate of the rest."""

import math

import pytest

from pipeline.costs.actor_time import ActorTime
from pipeline.costs.costs import PaidShard, costs_of
from pipeline.costs.text import cost_lines

NONE = ActorTime()


def a_shard(gpu_s: float | None, images: int = 1000, *, gpus: float = 1) -> PaidShard:
    time = None if gpu_s is None else ActorTime.of(held_s=gpu_s, busy_s=gpu_s / 2, gpus=gpus)
    return PaidShard(images=images, size_bytes=10 * images, time=time)


def test_money_is_that_of_the_gpus_held() -> None:
    found = costs_of(
        [a_shard(360.0), a_shard(540.0)],
        ActorTime.of(held_s=900.0, busy_s=0.0, gpus=1),
        bytes_left=40_000,
        gpu_hour_cost=4.0,
    )
    assert found.time == ActorTime(held_s=1800, busy_s=450, gpu_held_s=1800, gpu_busy_s=450)
    assert found.cost == pytest.approx(2.0)
    assert found.cost_per_1000_images is not None
    assert found.cost_per_1000_images.value == pytest.approx(0.5)  # of what was committed
    assert found.cost_left is not None
    assert found.cost_left.value == pytest.approx(2.0)
    assert 0 <= found.cost_left.low < 2.0 < found.cost_left.high < math.inf
    lines = dict(cost_lines(found))
    assert lines["GPU hours"] == "0.5, 25% of them busy; 0.25 of them in no commit"
    assert lines["cost so far"] == "2.00"
    assert lines["cost to finish"].startswith("2.00 (")


def test_a_single_shard_has_no_interval() -> None:
    found = costs_of([a_shard(360.0)], NONE, bytes_left=10_000, gpu_hour_cost=1.0)
    assert found.cost_left is not None
    assert (found.cost_left.low, found.cost_left.high) == (0.0, math.inf)
    assert "one shard is too few" in dict(cost_lines(found))["cost to finish"]


def test_without_a_price_hours_are_told() -> None:
    found = costs_of([a_shard(3600.0), a_shard(3600.0)], NONE, bytes_left=10_000)
    assert (found.cost, found.cost_per_1000_images, found.cost_left) == (None, None, None)
    lines = dict(cost_lines(found))
    assert lines["GPU hours per 1,000 images"].startswith("1 (")
    assert lines["GPU hours to finish"].startswith("1 (")


def test_actors_on_cpus_cost_no_gpu() -> None:
    found = costs_of([a_shard(3600.0, gpus=0)], NONE, bytes_left=1, gpu_hour_cost=2.0)
    assert (found.cost, found.gpu_s_left, found.cost_left) == (None, None, None)
    assert dict(cost_lines(found)) == {"actor hours": "1, 50% of them busy, without GPUs"}


def test_earlier_versions_counted_nothing() -> None:
    found = costs_of([a_shard(None)] * 3, NONE, bytes_left=1, gpu_hour_cost=2.0)
    assert (found.time, found.cost, found.shards_unknown) == (None, None, 3)
    [(_, said)] = cost_lines(found)
    assert said == "unknown: 3 shards are of an earlier version"
    mixed = costs_of([a_shard(None), a_shard(360.0)], NONE, bytes_left=1, gpu_hour_cost=2.0)
    assert mixed.cost == pytest.approx(0.2)
    assert "1 shards of an earlier version are unknown" in dict(cost_lines(mixed))["GPU hours"]


def test_a_dataset_that_has_just_begun_has_cost_nothing_yet() -> None:
    found = costs_of([], NONE, bytes_left=1, gpu_hour_cost=2.0)
    assert found.time == NONE
    assert (found.cost, found.cost_left) == (None, None)
