"""One S3 server and one Ray cluster for all end-to-end tests; every request goes by a recorder."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from kosmos2_core.shapes.world.shards import write_shards
from tests.support.cluster import Kosmos2, running_cluster
from tests.support.proxy import Proxy, running_proxy
from tests.support.s3 import S3Server

FEW_OBJECTS = (1, 2)  # objects per scene
SEED = 20261122
SHARDS, IMAGES = 20, 70  # of each shard: more than a table holds


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """A fresh bucket with `shards/` for the input and `out/` for the output."""

    name: str
    server: S3Server

    @property
    def input(self) -> str:
        return f"s3://{self.name}/shards/"

    @property
    def output(self) -> str:
        return f"s3://{self.name}/out"

    def put(self, key: str, data: bytes) -> None:
        self.server.client().put_object(Bucket=self.name, Key=key, Body=data)

    def get(self, key: str) -> bytes:
        body = self.server.client().get_object(Bucket=self.name, Key=key)["Body"]
        return bytes(body.read())

    def objects(self, prefix: str) -> dict[str, tuple[str, str]]:
        """Key -> (ETag, time of the last change), as the server has them."""
        pages = self.server.client().get_paginator("list_objects_v2")
        return {
            found["Key"]: (found["ETag"], str(found["LastModified"]))
            for page in pages.paginate(Bucket=self.name, Prefix=prefix)
            for found in page.get("Contents", [])
        }

    def delete(self, key: str) -> None:
        self.server.client().delete_object(Bucket=self.name, Key=key)

    def put_shards(self, folder: Path, count: int | None = None) -> None:
        for path in sorted(folder.glob("*.tar"))[:count]:
            self.put(f"shards/{path.name}", path.read_bytes())

    def put_output_of(self, done: "Bucket", *, without: tuple[str, ...] = ()) -> None:
        """That job's files but those whose keys begin so: a test may go on with it from here.

        Its input stays where it is: the plan has whole URIs.
        """
        for key in done.objects("out/"):
            if not key.startswith(without):
                self.put(key, done.get(key))


@pytest.fixture
def bucket(s3_server: S3Server) -> Bucket:
    name = s3_server.make_bucket(f"e2e-{uuid4().hex[:12]}")
    return Bucket(name=name, server=s3_server)


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
