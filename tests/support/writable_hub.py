"""A hub on loopback that datasets can be written to, with the routes that an upload uses.

Small files arrive in commits. Files of `large_bytes` and more arrive by the protocol of git-lfs,
which huggingface_hub uses without hf_xet; the storage of hf_xet is not imitated.
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from threading import Lock
from typing import Any
from urllib.parse import unquote

from huggingface_hub import DatasetCard

from tests.support.loopback import served

TOKEN = "hf_" + "secret" * 5
_ROUTE = re.compile(r"/api/datasets/(?P<name>[^/]+/[^/]+)/?(?P<rest>.*)")


@dataclass
class Repository:
    is_private: bool
    branches: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {}})
    commits: list[list[str]] = field(default_factory=list)  # paths of each, added or deleted

    @property
    def head(self) -> str:
        return hashlib.sha1(str(self.commits).encode(), usedforsecurity=False).hexdigest()


@dataclass
class WritableHub:
    """Answers a request with the status that `refuse(method, path)` gives, if it gives one."""

    owner: str = "me"
    large_bytes: int = 10**9
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)  # of git-lfs, by sha256
    requests: list[str] = field(default_factory=list)
    refuse: Callable[[str, str], int | None] = lambda *_: None
    url: str = ""
    lock: Lock = field(default_factory=Lock)

    def answer(self, method: str, path: str, token: str, data: bytes) -> tuple[int, Any]:
        self.requests.append(f"{method} {path}")
        if (status := self.refuse(method, path)) is not None:
            return status, {"error": f"refused for {token}"}
        if path.startswith("/lfs/"):
            return self._put_object(path.removeprefix("/lfs/"), data)
        if token != f"Bearer {TOKEN}":
            return 401, {"error": "Invalid username or password."}
        if path == "/api/whoami-v2":
            return 200, {"name": self.owner, "type": "user"}
        if path == "/api/validate-yaml":
            return self._check_card(json.loads(data)["content"])
        if path == "/api/repos/create":
            return self._create(json.loads(data))
        if path.endswith(".git/info/lfs/objects/batch"):
            return self._batch(json.loads(data))
        route = _ROUTE.fullmatch(path)
        if route is None or route["name"] not in self.repositories:
            return 404, {"error": "Repository not found", "code": "RepoNotFound"}
        return self._of_repository(route["name"], route["rest"], data)

    def _check_card(self, text: str) -> tuple[int, Any]:
        try:
            is_known = DatasetCard(text).data.license in (None, "other", "cc-by-4.0")
        except ValueError as error:
            return 400, {"errors": [{"message": str(error)}], "warnings": []}
        errors = [] if is_known else [{"message": '"license" must be one of [...]'}]
        return (400 if errors else 200), {"errors": errors, "warnings": []}

    def _create(self, asked: dict[str, Any]) -> tuple[int, Any]:
        if asked["organization"] != self.owner:
            return 403, {"error": "You don't have the rights"}
        name = f"{asked['organization']}/{asked['name']}"
        assert asked["type"] == "dataset"
        self.repositories[name] = Repository(is_private=asked["visibility"] == "private")
        return 200, {"url": f"{self.url}/datasets/{name}"}

    def _of_repository(self, name: str, rest: str, data: bytes) -> tuple[int, Any]:
        repository = self.repositories[name]
        action, _, revision = rest.partition("/")
        if not rest or action == "revision":
            files = repository.branches.get(revision or "main")
            if files is None:
                return 404, {"error": "no such revision"}
            info = {"id": name, "private": repository.is_private, "sha": repository.head}
            return 200, {**info, "siblings": [{"rfilename": path} for path in files]}
        if action == "branch":
            if revision in repository.branches:
                return 409, {"error": "exists"}
            repository.branches[revision] = dict(repository.branches["main"])
            return 200, {}
        files = repository.branches[revision]
        if action == "tree":
            return 200, [_entry(path, data) for path, data in files.items()]
        if action == "preupload":
            asked = json.loads(data)["files"]
            return 200, {"files": [self._mode(each, files) for each in asked]}
        assert action == "commit", rest
        return self._commit(name, files, data)

    def _mode(self, asked: dict[str, Any], files: dict[str, bytes]) -> dict[str, Any]:
        path = asked["path"]
        is_large = asked["size"] >= self.large_bytes
        found = {
            "path": path,
            "uploadMode": "lfs" if is_large else "regular",
            "shouldIgnore": False,
        }
        if path in files:
            found["oid"] = (_sha256 if is_large else _git_sha1)(files[path])
        return found

    def _commit(self, name: str, files: dict[str, bytes], data: bytes) -> tuple[int, Any]:
        repository, changed = self.repositories[name], []
        for line in map(json.loads, data.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
            changed += [value["path"]] if "path" in value else []
        repository.commits.append(changed)
        oid = repository.head
        return 200, {"commitUrl": f"{self.url}/datasets/{name}/commit/{oid}", "commitOid": oid}

    def _batch(self, asked: dict[str, Any]) -> tuple[int, Any]:
        def action(wanted: dict[str, Any]) -> dict[str, Any]:
            if wanted["oid"] in self.objects:
                return wanted
            return {**wanted, "actions": {"upload": {"href": f"{self.url}/lfs/{wanted['oid']}"}}}

        return 200, {"transfer": "basic", "objects": [action(each) for each in asked["objects"]]}

    def _put_object(self, oid: str, data: bytes) -> tuple[int, Any]:
        assert _sha256(data) == oid
        self.objects[oid] = data
        return 200, {}


@contextmanager
def writable_hub(**options: Any) -> Iterator[WritableHub]:
    hub = WritableHub(**options)

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = unquote(self.path.partition("?")[0])
            with hub.lock:
                status, found = hub.answer(
                    self.command, path, self.headers.get("Authorization", ""), data
                )
            body = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            if status >= 400 and "code" in found:
                self.send_header("X-Error-Code", found["code"])
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = _answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with served(Handler) as hub.url:
        yield hub


def _entry(path: str, data: bytes) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": len(data), "oid": _git_sha1(data)}


def _git_sha1(data: bytes) -> str:
    header = f"blob {len(data)}\0".encode()
    return hashlib.sha1(header + data, usedforsecurity=False).hexdigest()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
