"""A hub on loopback: one repository, with the routes that `snapshot_download` uses."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Lock

from tests.support.loopback import served

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """`owner/tiny` at one commit. Answers the next `throttled` requests with 429."""

    files: dict[str, bytes]
    throttled: int = 0
    requests: list[str] = field(default_factory=list)
    url: str = ""
    _lock: Lock = field(default_factory=Lock)

    def is_throttled(self) -> bool:
        with self._lock:
            self.throttled -= 1
            return self.throttled >= 0


@contextmanager
def running_hub(directory: Path) -> Iterator[Hub]:
    hub = Hub({path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()})

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(has_body=False)

        def do_GET(self) -> None:
            self._answer(has_body=True)

        def _answer(self, *, has_body: bool) -> None:
            path = self.path.partition("?")[0]
            hub.requests.append(f"{self.command} {path}")
            name = path.rpartition("/")[2]
            if hub.is_throttled():
                self._send(429, b"{}", {}, has_body)
            elif path.startswith("/api/models/owner/tiny/tree/"):
                tree = [_entry(name, data) for name, data in hub.files.items()]
                self._send(200, json.dumps(tree).encode(), {}, has_body)
            elif path.startswith("/api/models/owner/tiny"):
                siblings = [{"rfilename": name} for name in hub.files]
                info = {"id": "owner/tiny", "sha": COMMIT, "siblings": siblings}
                self._send(200, json.dumps(info).encode(), {}, has_body)
            elif path.startswith("/owner/tiny/resolve/") and name in hub.files:
                data = hub.files[name]
                headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{_sha1(data)}"'}
                self._send(200, data, headers, has_body)
            else:
                self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, has_body)

        def _send(self, status: int, data: bytes, headers: dict[str, str], has_body: bool) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            for key, value in headers.items():
                self.send_header(key, value)
            self.end_headers()
            if has_body:
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with served(Handler) as hub.url:
        yield hub


def _entry(name: str, data: bytes) -> dict[str, object]:
    return {"type": "file", "path": name, "size": len(data), "oid": _sha1(data)}


def _sha1(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()
