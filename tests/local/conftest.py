"""Whole jobs in this process: a real S3 server and the embedded model, but no Ray."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from kosmos2_core.shapes.world.shards import write_shards
from tests.support.bucket import FEW_OBJECTS, IMAGES, SEED, SHARDS
from tests.support.locally import LightTables, LocalCommand, local_surroundings, without_ray
from tests.support.s3 import S3Server


@pytest.fixture(scope="module", autouse=True)
def surroundings(s3_server: S3Server) -> Iterator[None]:
    with local_surroundings(s3_server):
        yield


@pytest.fixture(scope="module")
def light(surroundings: None) -> Iterator[None]:
    """Jobs have a model of one answer."""
    with pytest.MonkeyPatch.context() as patch:
        without_ray(patch, LightTables)
        yield


@pytest.fixture(scope="session")
def kosmos2() -> LocalCommand:
    return LocalCommand()


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of scenes with 1 or 2 objects, each with its truth."""
    folder = tmp_path_factory.mktemp("scenes")
    write_shards(folder, shards=SHARDS, images=IMAGES, seed=SEED, objects=FEW_OBJECTS)
    return folder
