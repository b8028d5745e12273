"""One S3 server and one Ray cluster for all end-to-end tests; every request goes by a recorder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from kosmos2_core.shapes.world.shards import write_shards
from tests.support.bucket import FEW_OBJECTS, IMAGES, SEED, SHARDS, Bucket
from tests.support.cluster import Kosmos2, running_cluster
from tests.support.proxy import Proxy, running_proxy
from tests.support.s3 import S3Server


@pytest.fixture(scope="session")
def recorder(s3_server: S3Server) -> Iterator[Proxy]:
    """What the S3 server is asked, by whichever process."""
    with running_proxy(s3_server.endpoint_url) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def kosmos2(s3_server: S3Server, recorder: Proxy) -> Iterator[Kosmos2]:
    environment = {**s3_server.environment, "AWS_ENDPOINT_URL": recorder.endpoint_url}
    with running_cluster(environment) as command:
        yield command


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of scenes with 1 or 2 objects, each with its truth."""
    folder = tmp_path_factory.mktemp("scenes")
    write_shards(folder, shards=SHARDS, images=IMAGES, seed=SEED, objects=FEW_OBJECTS)
    return folder


@pytest.fixture(scope="session")
def annotated(kosmos2: Kosmos2, s3_server: S3Server, scenes: Path) -> Bucket:
    """All scenes, annotated in one run. To be looked at; `put_output_of` makes another of it."""
    bucket = Bucket(name=s3_server.make_bucket("e2e-annotated"), server=s3_server)
    bucket.put_shards(scenes)
    done = kosmos2.run("annotate", bucket.input, bucket.output)
    assert done.returncode == 0, done.stderr
    return bucket
