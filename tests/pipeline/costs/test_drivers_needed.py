"""The number of drivers follows from the pace of actors and the size of shards."""

from dataclasses import dataclass

import pytest

from pipeline.costs.actor_time import ActorTime
from pipeline.costs.drivers import PACE_ON_A_GPU, BusyPace


@dataclass(frozen=True)
class Shard:
    samples: int
    actor_time: ActorTime | None


def done(images: int, *, busy_s: float, gpus: float = 0.0) -> Shard:
    return Shard(images, ActorTime.of(held_s=2 * busy_s, busy_s=busy_s, gpus=gpus))


@pytest.mark.parametrize(
    ("images_per_s", "images_per_shard", "actors", "drivers"),
    [
        (900, 1000, 1, 1),
        (900, 1000, 37, 1),
        (900, 1000, 38, 2),
        (900, 1000, 256, 7),
        (100, 1000, 256, 1),  # slow actors
        (900, 100, 64, 4),  # each shard costs its driver some time
        (900, 0, 1, 4),
        (0, 1000, 64, 1),
    ],
)
def test_each_driver_is_half_busy_at_most(
    images_per_s: float, images_per_shard: float, actors: int, drivers: int
) -> None:
    pace = BusyPace(images_per_s=images_per_s, images_per_shard=images_per_shard)
    assert pace.drivers(actors) == drivers
    assert pace.driver_cores(actors) / drivers <= 0.5


def test_the_pace_is_that_of_actors_that_are_busy_on_the_same_kind_of_device() -> None:
    done_before = [
        done(1000, busy_s=2.0, gpus=0.5),
        done(3000, busy_s=3.0, gpus=0.5),
        done(50, busy_s=10.0),
        done(0, busy_s=0.0, gpus=0.5),
        Shard(70, None),  # of an earlier version
    ]
    on_gpus = BusyPace.of(done_before, on_gpus=True)
    assert on_gpus == BusyPace(images_per_s=800.0, images_per_shard=2000.0)
    assert BusyPace.of(done_before, on_gpus=False) == BusyPace(
        images_per_s=5.0, images_per_shard=50.0
    )
    assert BusyPace.of(done_before[3:], on_gpus=False) is None


def test_a_first_run_expects_the_most_of_a_gpu() -> None:
    assert [PACE_ON_A_GPU.drivers(actors) for actors in (1, 37, 38)] == [1, 1, 2]
