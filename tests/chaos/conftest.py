"""What all tests of faults annotate."""

from pathlib import Path

import pytest

from kosmos2_core.shapes.world.shards import write_shards
from tests.chaos.world import IMAGES, SHARDS
from tests.support.bucket import FEW_OBJECTS


@pytest.fixture(scope="package")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("few")
    write_shards(folder, shards=SHARDS, images=IMAGES, seed=5, objects=FEW_OBJECTS)
    return folder
