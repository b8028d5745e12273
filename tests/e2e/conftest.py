"""One S3 server and one Ray cluster for all end-to-end tests; every request goes by a recorder."""

import subprocess
from collections.abc import Iterator
from dataclasses import replace
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
    environment = {
        **s3_server.environment,
        "AWS_ENDPOINT_URL": recorder.endpoint_url,
        # So that a test waits less for what a killed driver had reserved; test_autoscaling waits.
        "RAY_DATA_AUTOSCALING_REQUEST_EXPIRE_TIME_S": "4",
        "RAY_DATA_MIN_GAP_BETWEEN_AUTOSCALING_REQUESTS": "1",
    }
    with running_cluster(environment) as command:
        yield command


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of scenes with 1 or 2 objects, each with its truth."""
    folder = tmp_path_factory.mktemp("scenes")
    write_shards(folder, shards=SHARDS, images=IMAGES, seed=SEED, objects=FEW_OBJECTS)
    return folder


@pytest.fixture(scope="session")
def first_run(
    kosmos2: Kosmos2, s3_server: S3Server, scenes: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Bucket, subprocess.CompletedProcess[str]]:
    """All scenes, annotated in one run from a folder that has modules of the same names as ours.

    A reader dies after its first block.
    """
    folder = tmp_path_factory.mktemp("not-ours")
    for name in ("pipeline", "kosmos2_core", "jobs", "types", "utils", "torch"):
        (folder / f"{name}.py").write_text("raise RuntimeError('not ours')")
    bucket = Bucket(name=s3_server.make_bucket("e2e-annotated"), server=s3_server)
    bucket.put_shards(scenes)
    died = folder / "reader-died"
    dies = replace(kosmos2.with_faults(f"reader.block:2=kill@{died}"), folder=folder)
    done = dies.run("annotate", bucket.input, bucket.output)
    assert died.exists(), done.stderr
    return bucket, done


@pytest.fixture(scope="session")
def annotated(first_run: tuple[Bucket, subprocess.CompletedProcess[str]]) -> Bucket:
    """Annotate those scenes. Tests only look at it; `put_output_of` makes another dataset of it."""
    bucket, done = first_run
    assert done.returncode == 0, done.stderr
    return bucket
