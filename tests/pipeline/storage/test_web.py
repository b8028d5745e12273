"""Images from the web: what is fetched, and where nobody is led."""

from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from pipeline.errors import (
    InputChanged,
    InputMissing,
    InputTooLarge,
    PipelineError,
    StorageError,
    StorageRefused,
    StorageUrlError,
)
from pipeline.formats.sample import Sample
from pipeline.reading.row_images import encoded_image
from pipeline.storage import InputStore, StorageOptions, web
from tests.support.forms import planned
from tests.support.tars import picture

PICTURE = picture()
STORE = InputStore(StorageOptions(allow_http=True))


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        asked.append(self.path)
        status, headers, body = ANSWERS[self.path]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


ANSWERS: dict[str, tuple[int, dict[str, str], bytes]] = {
    "/a.jpg": (200, {}, PICTURE),
    "/moved": (302, {"Location": "/a.jpg"}, b""),
    "/round": (302, {"Location": "/round"}, b""),
    "/to-metadata": (302, {"Location": "http://169.254.169.254/latest/meta-data/"}, b""),
    "/to-file": (302, {"Location": "file:///etc/passwd"}, b""),
    "/gone": (404, {}, b""),
    "/mine": (403, {}, b""),
    "/busy": (503, {}, b""),
    "/large": (200, {}, bytes(3000)),
    "/bomb": (200, {"Content-Encoding": "gzip"}, b"not unpacked"),
}
asked: list[str] = []


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def this_machine_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    is_public = web.is_public
    monkeypatch.setattr(web, "is_public", lambda host: host == "127.0.0.1" or is_public(host))
    monkeypatch.setattr(web, "_PAUSE_S", 0.01)


@pytest.mark.usefixtures("this_machine_is_public")
@pytest.mark.parametrize(
    ("path", "expected"),
    [("/a.jpg", PICTURE), ("/moved", PICTURE), ("/bomb", b"not unpacked")],
)
def test_an_image_comes_as_it_is(server: str, path: str, expected: bytes) -> None:
    assert STORE.read_whole(server + path, max_bytes=1 << 20) == expected


@pytest.mark.usefixtures("this_machine_is_public")
@pytest.mark.parametrize(
    ("path", "error", "said"),
    [
        ("/gone", InputMissing, "HTTP 404"),
        ("/mine", StorageRefused, "HTTP 403"),
        ("/busy", StorageError, "HTTP 503"),
        ("/large", InputTooLarge, "more than"),
        ("/round", StorageRefused, "TooManyRedirects"),
        ("/to-metadata", StorageRefused, "169.254.169.254 is a private address"),
        ("/to-file", StorageRefused, "Url"),
    ],
)
def test_what_goes_wrong_has_a_type(
    server: str, path: str, error: type[PipelineError], said: str
) -> None:
    with pytest.raises(PipelineError, match=said) as raised:
        STORE.read_whole(server + path, max_bytes=2000)
    assert type(raised.value) is error
    assert raised.value.retriable == (error is StorageError)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433"])
def test_this_machine_is_asked_nothing(server: str, host: str) -> None:
    asked.clear()
    uri = server.replace("127.0.0.1", host) + "/a.jpg"
    with pytest.raises(StorageRefused, match=r"private address|InvalidUrl"):
        STORE.read_whole(uri, max_bytes=2000)
    assert asked == []


def test_the_web_is_closed_unless_it_is_allowed(server: str) -> None:
    with pytest.raises(StorageRefused, match="--allow-http"):
        InputStore().read_whole(f"{server}/a.jpg", max_bytes=2000)


def test_an_address_with_a_secret_is_not_asked(server: str) -> None:
    with pytest.raises(StorageUrlError):
        STORE.read_whole(f"{server}/a.jpg?signature=hush", max_bytes=2000)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        *[(ip, False) for ip in ("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.0.1")],
        *[(ip, False) for ip in ("169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1")],
        *[(ip, False) for ip in ("255.255.255.255", "192.0.2.1", "198.18.0.1")],
        *[(ip, False) for ip in ("::1", "::", "fe80::1%eth0", "fc00::1", "ff02::1")],
        *[(ip, False) for ip in ("::ffff:127.0.0.1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::")],
        *[(ip, True) for ip in ("8.8.8.8", "2606:4700:4700::1111", "64:ff9b::808:808")],
    ],
)
def test_public_is_what_anybody_could_mean(address: str, expected: bool) -> None:
    assert web.is_public(address) is expected


@pytest.mark.usefixtures("this_machine_is_public")
def test_a_manifest_of_the_web_gives_images_and_rejections(server: str, tmp_path: Path) -> None:
    paths = ("/a.jpg", "/gone", "/busy", "/to-metadata")
    lines = (f'{{"url": "{server}{path}"}}\n' for path in paths)
    (tmp_path / "a.jsonl").write_text("".join(lines))
    found = planned(tmp_path / "a.jsonl", allow_http=True)
    [shard] = found.shards
    good, *bad = found.reader.read(shard)
    assert isinstance(good, Sample)
    assert (good.data, good.key, good.uri) == (PICTURE, f"{server}/a.jpg", f"{server}/a.jpg")
    assert [(each.error_type, each.is_retriable) for each in bad] == [
        *(("input_missing", False), ("storage_error", True), ("storage_refused", False))
    ]
    row = {"index": 0, "uri": good.uri, "image_offset": 0, "image_sha256": sha256(PICTURE).digest()}
    assert encoded_image(row, shard, found.reader) == PICTURE
    with pytest.raises(InputChanged, match="is not the image that was annotated"):
        encoded_image({**row, "image_sha256": bytes(32)}, shard, found.reader)
