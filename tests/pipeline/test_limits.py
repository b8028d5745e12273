"""What limits a run, from how busy its parts are."""

from dataclasses import replace

import pytest

from pipeline.limits import LimitingPart, Load

IDLE = Load(
    engine_busy=0.5,
    slots_used=0.5,
    driver_cores=0.1,
    readers_busy=1.0,
    reader_cores=0.9,
    readers=4.0,
)


@pytest.mark.parametrize(
    ("changes", "limit", "named"),
    [
        ({"engine_busy": 0.97, "slots_used": 0.95}, "actors", "engines 97% busy; more --actors"),
        ({"engine_busy": 0.97, "slots_used": None}, "actors", "more --actors"),
        (
            {"driver_cores": 0.93},
            "driver",
            "it uses 0.9 cores, and one is all it can use; --drivers 2",
        ),
        (
            {"driver_cores": 0.93, "drivers": 4},
            "driver",
            "the busiest of 4 uses 0.9 cores, and one is all it can use; --drivers 8",
        ),
        ({"puts_waiting": 70, "drivers": 2}, None, "none is full"),
        ({"puts_waiting": 70}, "output store", "70 finished shards"),
        (
            {"readers_busy": 3.6, "reader_cores": 3.1},
            "readers",
            "3.6 of 4 busy, 3.1 cores; more CPUs",
        ),
        (
            {"readers_busy": 3.6, "reader_cores": 0.4},
            "input store",
            "3.6 of 4 busy, but only 0.4 cores",
        ),
        ({}, None, "none is full: engines 50% busy, 50% of their slots used, readers 1.0 of 4"),
        ({"engine_busy": None}, None, "not known yet"),
    ],
)
def test_the_limit_is_the_part_that_is_full(
    changes: dict, limit: LimitingPart | None, named: str
) -> None:
    load = replace(IDLE, **changes)
    assert load.limit == limit
    assert named in load.limit_text


def test_engines_that_compute_for_few_images_are_not_full() -> None:
    """A step takes about the same time for any number of slots in use."""
    starved = replace(IDLE, engine_busy=0.99, slots_used=0.1, readers_busy=3.9, reader_cores=4.0)
    assert starved.limit == "readers"


def test_engines_whose_slots_are_all_empty_are_not_full() -> None:
    assert replace(IDLE, engine_busy=0.99, slots_used=0.0).limit is None


def test_a_load_of_which_nothing_is_known_has_no_limit() -> None:
    assert Load().limit is None
    assert Load(engine_busy=0.2).limit_text.startswith("none is full")
