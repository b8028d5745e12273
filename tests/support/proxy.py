"""A proxy on loopback before the S3 server: records what is asked, and misbehaves as told."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from socket import create_connection
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Lock, Thread
from typing import Any
from urllib.parse import urlsplit

_SMALL_BYTES = 2 * 10**4
_SLOW_DOWN = (
    b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nConnection: close\r\n\r\n"
    b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate</Message></Error>"
)


@dataclass
class Proxy:
    """Between a client and the S3 server; misbehaves as told, and forwards the rest untouched."""

    upstream: tuple[str, int]
    # So many of the next ...
    resets: int = 0  # requests are not answered: the connection is closed
    slow_downs: int = 0  # requests are answered with 503 SlowDown instead
    lose_answers: int = 0  # PUTs are forwarded, the connection is closed instead of an answer
    cut_bodies: int = 0  # GETs of objects are closed in the middle
    stall_bodies: int = 0  # GETs of objects stop in the middle, until the client gives up ...
    stall_s: float | None = None  # ... or so long
    hold_uploads: int = 0  # PUTs are not read beyond their first bytes, until the client gives up

    refuse_puts: bytes | None = None  # the answer instead; b"" closes the connection
    cut_request_after: int = 2**40  # bytes
    pause_before_shards_s: float = 0  # of GETs of tars
    held_uploads: list[str] = field(default_factory=list)  # as in `requests`, once they are held
    requests: list[str] = field(default_factory=list)  # "GET /bucket/key?query", in order
    heads: list[str] = field(default_factory=list)  # of the same requests, in lower case
    endpoint_url: str = field(default="", init=False)
    _lock: Lock = field(default_factory=Lock, init=False)

    def is_due(self, fault: str) -> bool:
        """Whether this is one of the next ..., which are then one fewer."""
        with self._lock:
            left: int = getattr(self, fault)
            if left > 0:
                setattr(self, fault, left - 1)
            return left > 0


@contextmanager
def running_proxy(endpoint_url: str, **faults: Any) -> Iterator[Proxy]:
    """Ends its server, not the one behind it."""
    endpoint = urlsplit(endpoint_url)
    state = Proxy((str(endpoint.hostname), int(endpoint.port or 80)), **faults)

    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            _forward_one(self.request, state)

    class Server(ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        state.endpoint_url = f"http://127.0.0.1:{server.server_address[1]}"
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield state
        server.shutdown()


def _forward_one(client: Any, state: Proxy) -> None:
    """One request per connection: asks the server to close it, so that its answer has an end."""
    head, body = _receive_head(client)
    if not head:
        return
    method = head.split(b" ", 1)[0]
    state.heads.append(head.decode().lower())
    state.requests.append(b" ".join(head.split(b" ", 2)[:2]).decode())
    if method == b"GET" and b".tar" in head.split(b" ", 2)[1]:
        time.sleep(state.pause_before_shards_s)
    if state.is_due("resets"):
        return
    if state.is_due("slow_downs"):
        client.sendall(_SLOW_DOWN)
        return
    length = _content_length(head)
    is_cut = method == b"PUT" and length > _SMALL_BYTES and state.is_due("hold_uploads")
    cut_after = _SMALL_BYTES if is_cut else state.cut_request_after
    if b"expect: 100-continue" in head.lower():
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    while len(body) < min(length, cut_after):
        chunk = client.recv(2**16)
        if not chunk:
            return  # it died
        body += chunk
    if method == b"PUT" and state.refuse_puts is not None:
        client.sendall(state.refuse_puts)
        return
    with create_connection(state.upstream) as server:
        server.sendall(_closing(head) + b"\r\n\r\n" + body[:cut_after])
        if is_cut:
            state.held_uploads.append(state.requests[-1])
            _wait_for_end(client)
        if len(body) < length:
            return
        answer = b"".join(iter(lambda: server.recv(2**16), b""))
    is_object = method == b"GET" and len(answer) > _SMALL_BYTES
    if method == b"PUT" and state.is_due("lose_answers"):
        return
    if is_object and state.is_due("cut_bodies"):
        client.sendall(answer[: len(answer) // 2])
    elif is_object and state.is_due("stall_bodies"):
        client.sendall(answer[: len(answer) // 2])
        client.settimeout(state.stall_s)
        _wait_for_end(client)
    else:
        client.sendall(answer)


def _wait_for_end(client: Any) -> None:
    """Until the client closes its side, or is no more."""
    with suppress(OSError):
        while client.recv(2**16):
            pass


def _receive_head(client: Any) -> tuple[bytes, bytes]:
    received = b""
    while b"\r\n\r\n" not in received:
        chunk = client.recv(2**16)
        if not chunk:
            return b"", b""
        received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    return head, body


def _content_length(head: bytes) -> int:
    lines = (line.lower() for line in head.split(b"\r\n"))
    return next((int(ln.split(b":")[1]) for ln in lines if ln.startswith(b"content-length:")), 0)


def _closing(head: bytes) -> bytes:
    dropped = (b"connection:", b"expect:")
    lines = [ln for ln in head.split(b"\r\n") if not ln.lower().startswith(dropped)]
    return b"\r\n".join([*lines, b"Connection: close"])
