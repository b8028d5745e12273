"""A proxy on loopback before the S3 server: records what is asked, and misbehaves as told."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from socket import create_connection
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Proxy:
    """Between a client and the S3 server; misbehaves as told, and forwards the rest untouched."""

    upstream: tuple[str, int]
    lose_answers: int = 0  # of PUTs: they are forwarded, the connection is closed instead
    cut_bodies: int = 0  # of GETs of objects: closed in the middle
    refuse_puts: bytes | None = None  # the answer instead; b"" closes the connection
    cut_request_after: int = 2**40  # bytes
    pause_before_shards_s: float = 0  # of GETs of tars
    requests: list[str] = field(default_factory=list)  # "GET /bucket/key?query", in order
    endpoint_url: str = field(default="", init=False)


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
    state.requests.append(b" ".join(head.split(b" ", 2)[:2]).decode())
    if method == b"GET" and b".tar" in head.split(b" ", 2)[1]:
        time.sleep(state.pause_before_shards_s)
    length = _content_length(head)
    if b"expect: 100-continue" in head.lower():
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    while len(body) < min(length, state.cut_request_after):
        body += client.recv(2**16)
    if method == b"PUT" and state.refuse_puts is not None:
        client.sendall(state.refuse_puts)
        return
    with create_connection(state.upstream) as server:
        server.sendall(_closing(head) + b"\r\n\r\n" + body[: state.cut_request_after])
        if len(body) < length:
            return
        answer = b"".join(iter(lambda: server.recv(2**16), b""))
    if method == b"PUT" and state.lose_answers > 0:
        state.lose_answers -= 1
    elif method == b"GET" and len(answer) > 10**5 and state.cut_bodies > 0:
        state.cut_bodies -= 1
        client.sendall(answer[: len(answer) // 2])
    else:
        client.sendall(answer)


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
