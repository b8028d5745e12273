"""A bucket for a job, and what the end-to-end tests put there."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from tests.support.s3 import S3Server

FEW_OBJECTS = (1, 2)  # objects per scene
SEED = 20261122
SHARDS, IMAGES = 3, 70  # of each shard: more than a table holds


class JobBucket(ABC):
    """A fresh bucket with `shards/` for the input and `out/` for the output."""

    __slots__ = ()

    @property
    @abstractmethod
    def url(self) -> str: ...

    @abstractmethod
    def put(self, key: str, data: bytes) -> None: ...

    @abstractmethod
    def get(self, key: str) -> bytes: ...

    @abstractmethod
    def objects(self, prefix: str) -> dict[str, tuple[str, str]]:
        """Key -> (ETag, time of the last change), as the server has them."""

    @property
    def input(self) -> str:
        return f"{self.url}/shards/"

    @property
    def output(self) -> str:
        return f"{self.url}/out"

    def put_shards(self, folder: Path, count: int | None = None) -> None:
        for path in sorted(folder.glob("*.tar"))[:count]:
            self.put(f"shards/{path.name}", path.read_bytes())


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket(JobBucket):
    name: str
    server: S3Server

    @property
    def url(self) -> str:
        return f"s3://{self.name}"

    def put(self, key: str, data: bytes) -> None:
        self.server.client().put_object(Bucket=self.name, Key=key, Body=data)

    def get(self, key: str) -> bytes:
        body = self.server.client().get_object(Bucket=self.name, Key=key)["Body"]
        return bytes(body.read())

    def objects(self, prefix: str) -> dict[str, tuple[str, str]]:
        pages = self.server.client().get_paginator("list_objects_v2")
        return {
            found["Key"]: (found["ETag"], str(found["LastModified"]))
            for page in pages.paginate(Bucket=self.name, Prefix=prefix)
            for found in page.get("Contents", [])
        }

    def delete(self, key: str) -> None:
        self.server.client().delete_object(Bucket=self.name, Key=key)

    def put_output_of(self, done: "Bucket", *, without: tuple[str, ...] = ()) -> None:
        """That job's files but those whose keys begin so: a test may go on with it from here.

        Its input stays where it is: the plan has whole URIs.
        """
        for key in done.objects("out/"):
            if not key.startswith(without):
                self.put(key, done.get(key))
