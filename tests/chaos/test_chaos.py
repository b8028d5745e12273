"""Schedules of faults, with one and with two drivers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.__main__ import prepared, stems
from tests.chaos.schedule import DEATH_OF_A_DRIVER, DEATHS, TROUBLES, draw
from tests.chaos.world import IMAGES, World, running_world
from tests.support.s3 import S3Server


@pytest.fixture(scope="module")
def world(s3_server: S3Server) -> Iterator[World]:
    with running_world(s3_server) as world:
        yield world


@pytest.mark.slow
@pytest.mark.parametrize("number", [4, 5, 8, 12, 26])
def test_schedule_of_faults_loses_nothing(world: World, few: Path, number: int) -> None:
    chaos = prepared(world, few, seed=1, number=number)
    outcome = chaos.run(dict.fromkeys(stems(few), IMAGES))
    print(outcome)
    assert outcome.is_good, (outcome, *chaos.said)


def test_schedules_are_drawn_from_their_seed() -> None:
    assert draw(1, 2) == draw(1, 2)
    drawn = [draw(1, number) for number in range(50)]
    assert len(set(drawn)) == 50
    assert {fault.kind for faults in drawn for fault in faults} == {
        *(*DEATHS, DEATH_OF_A_DRIVER),
        *TROUBLES,
    }
