"""A real server of Azure Blob Storage's interface for tests: Azurite, on a loopback port."""

import base64
import hashlib
import hmac
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from socket import create_connection
from urllib.request import Request, urlopen

import pytest
from obstore.store import AzureStore

from tests.support.bucket import JobBucket
from tests.support.patience import patient
from tests.support.s3 import free_ports

_HINT = "no azurite-blob on the PATH: `npm install --global azurite`"
_ACCOUNT = "testaccount"
_START_TIMEOUT_S = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Azurite:
    """`endpoint_url` ends with the account, as Azurite has it."""

    endpoint_url: str
    account: str = _ACCOUNT
    key: str = field(default=base64.b64encode(b"test-secret-key").decode(), repr=False)

    def make_container(self, name: str) -> str:
        with urlopen(self._signed("PUT", f"/{name}", {"restype": "container"})):
            return name

    def container(self, name: str) -> AzureStore:
        """A plain client, to look at the store without our own code."""
        return AzureStore(
            name,
            config={
                "account_name": self.account,
                "account_key": self.key,
                "endpoint": self.endpoint_url,
            },
            client_options={"allow_http": True},
        )

    def through(self, proxy_url: str) -> "Azurite":
        """The same server behind a proxy."""
        return replace(self, endpoint_url=f"{proxy_url}/{self.account}")

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AZURE_STORAGE_ACCOUNT_NAME": self.account,
            "AZURE_STORAGE_ACCOUNT_KEY": self.key,
            "AZURE_STORAGE_ENDPOINT": self.endpoint_url,
        }

    def _signed(self, method: str, path: str, query: dict[str, str]) -> Request:
        now = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
        headers = {"x-ms-date": now, "x-ms-version": "2021-12-02"}
        named = "".join(f"{name}:{value}\n" for name, value in headers.items())
        asked = "".join(f"\n{name}:{value}" for name, value in sorted(query.items()))
        text = f"{method}{chr(10) * 12}{named}/{self.account}/{self.account}{path}{asked}"
        digest = hmac.new(base64.b64decode(self.key), text.encode(), hashlib.sha256).digest()
        signature = base64.b64encode(digest).decode()
        headers["Authorization"] = f"SharedKey {self.account}:{signature}"
        sent = "&".join(f"{name}={value}" for name, value in query.items())
        return Request(f"{self.endpoint_url}{path}?{sent}", method=method, headers=headers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Container(JobBucket):
    name: str
    server: Azurite

    @property
    def url(self) -> str:
        return f"az://{self.name}"

    def put(self, key: str, data: bytes) -> None:
        self.server.container(self.name).put(key, data)

    def get(self, key: str) -> bytes:
        return bytes(self.server.container(self.name).get(key).bytes())

    def objects(self, prefix: str) -> dict[str, tuple[str, str]]:
        pages = self.server.container(self.name).list(prefix.rstrip("/"))
        return {
            each["path"]: (str(each["e_tag"]), str(each["last_modified"]))
            for page in pages
            for each in page
        }


@contextmanager
def running_azurite() -> Iterator[Azurite]:
    """Without one the test is skipped, but not by CI. Raises RuntimeError with the server's log."""
    path = shutil.which("azurite-blob")
    if path is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(_HINT)
    [port] = free_ports(1)
    server = Azurite(endpoint_url=f"http://127.0.0.1:{port}/{_ACCOUNT}")
    with tempfile.TemporaryDirectory(prefix="azurite-") as name:
        log = Path(name, "log")
        with log.open("wb") as file:
            process = subprocess.Popen(
                [
                    *(path, "--blobHost", "127.0.0.1", "--blobPort", str(port)),
                    *("--skipApiVersionCheck", "--inMemoryPersistence", "--disableTelemetry"),
                    "--silent",
                ],
                env={**os.environ, "AZURITE_ACCOUNTS": f"{server.account}:{server.key}"},
                cwd=name,
                stdout=file,
                stderr=file,
            )
        try:
            _wait_until_ready(port, process, log)
            yield server
        finally:
            process.kill()  # its data is in its memory
            process.wait()


def _wait_until_ready(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + patient(_START_TIMEOUT_S)
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError):
            create_connection(("127.0.0.1", port), 1).close()
            return
        time.sleep(0.05)
    raise RuntimeError(f"Azurite does not answer:\n{log.read_text(errors='replace')[-4000:]}")
