"""Schedules of faults with Azurite as the store."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.__main__ import prepared, stems
from tests.chaos.world import IMAGES, World, running_world
from tests.support.azurite import Azurite

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def world(azurite: Azurite) -> Iterator[World]:
    with running_world(azurite) as world:
        yield world


@pytest.mark.parametrize("number", [1, 2])
def test_schedule_of_faults_loses_nothing(world: World, few: Path, number: int) -> None:
    chaos = prepared(world, few, seed=11, number=number)
    outcome = chaos.run(dict.fromkeys(stems(few), IMAGES))
    assert outcome.is_good, (outcome, *chaos.said)
