"""A small server of Google Cloud Storage's XML interface for tests, as its reference describes it.

No emulator that can be installed here honours the conditions of this interface. This one knows what
our requests use: objects with generations, If-Match, x-goog-if-generation-match, ranges, lists.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from itertools import count
from threading import Lock
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.support.loopback import served


@dataclass(frozen=True, slots=True)
class _Object:
    data: bytes
    generation: int
    written: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.data).hexdigest()}"'


@dataclass(slots=True)
class GoogleStore:
    """Objects of one bucket by "bucket/key". `authorizations` are those of the GETs, in order."""

    bucket: str
    objects: dict[str, _Object] = field(default_factory=dict)
    authorizations: list[str | None] = field(default_factory=list)
    ignored: str = ""  # a condition
    keys_per_page: int = 1000  # as Google Cloud has them
    endpoint_url: str = ""
    lock: Lock = field(default_factory=Lock)
    generations: Iterator[int] = field(default_factory=lambda: count(1700000000000000))

    def put(self, name: str, data: bytes) -> None:
        self.objects[name] = _Object(data, next(self.generations))


@contextmanager
def running_google_store(bucket: str) -> Iterator[GoogleStore]:
    store = GoogleStore(bucket)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            with store.lock:
                found = store.objects.get(self.name)
                wanted = self.headers["x-goog-if-generation-match"]
                now = found.generation if found else 0
                if store.ignored != "x-goog-if-generation-match" and wanted not in (None, str(now)):
                    self.refuse(412, "PreconditionFailed")
                else:
                    store.put(self.name, body)
                    self.answer(200, store.objects[self.name])

        def do_GET(self) -> None:
            store.authorizations.append(self.headers["Authorization"])
            if self.name.partition("/")[0] != store.bucket:
                self.refuse(404, "NoSuchBucket")
            elif "list-type" in self.query:
                self.answer(200, body=_listing(store, self.query).encode())
            elif (found := store.objects.get(self.name)) is None:
                self.refuse(404, "NoSuchKey")
            elif self.headers["If-Match"] not in (None, found.etag):
                self.refuse(412, "PreconditionFailed")
            elif self.headers["Range"] is None:
                self.answer(200, found, found.data)
            else:
                first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
                part = found.data[int(first) : int(last) + 1]
                if part:
                    span = f"bytes {first}-{int(first) + len(part) - 1}/{len(found.data)}"
                    self.answer(206, found, part, span)
                else:
                    self.refuse(416, "InvalidRange")

        do_HEAD = do_GET  # noqa: N815

        def do_DELETE(self) -> None:
            with store.lock:
                if store.objects.pop(self.name, None) is None:
                    self.refuse(404, "NoSuchKey")
                else:
                    self.answer(204)

        @property
        def name(self) -> str:
            return unquote(urlsplit(self.path).path).removeprefix("/")

        @property
        def query(self) -> dict[str, str]:
            query = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
            return {name: values[0] for name, values in query.items()}

        def refuse(self, status: int, code: str) -> None:
            body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>"
            self.answer(status, body=body.encode())

        def answer(
            self, status: int, found: _Object | None = None, body: bytes = b"", span: str = ""
        ) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if found is not None:
                self.send_header("ETag", found.etag)
                self.send_header("x-goog-generation", str(found.generation))
                self.send_header("Last-Modified", f"{found.written:%a, %d %b %Y %H:%M:%S GMT}")
            if span:
                self.send_header("Content-Range", span)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            pass

    with served(Handler) as store.endpoint_url:
        yield store


def _listing(store: GoogleStore, query: dict[str, str]) -> str:
    """One page."""
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    after = query.get("continuation-token", "")
    every = dict(store.objects)
    keys = sorted(name.partition("/")[2] for name in every)
    keys = [key for key in keys if key.startswith(prefix) and key > after]
    page, parts, folders = keys[: store.keys_per_page], list[str](), set[str]()
    for key in page:
        rest = key.removeprefix(prefix)
        if delimiter and delimiter in rest:
            folders.add(prefix + rest.partition(delimiter)[0] + delimiter)
            continue
        found = every[f"{store.bucket}/{key}"]
        written = found.written.isoformat().replace("+00:00", "Z")
        parts.append(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(found.data)}</Size>"
            f"<ETag>{escape(found.etag)}</ETag><LastModified>{written}</LastModified></Contents>"
        )
    parts += [f"<CommonPrefixes><Prefix>{escape(f)}</Prefix></CommonPrefixes>" for f in folders]
    if len(keys) > len(page):
        parts.append(f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>")
    return f"<?xml version='1.0'?><ListBucketResult>{''.join(parts)}</ListBucketResult>"
