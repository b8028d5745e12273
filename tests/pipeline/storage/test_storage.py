"""The storage layer, against real directories and a real S3 server."""

import errno
import io
import os
import pickle
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tarfile import TarFile
from threading import Barrier, Thread
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError
from obstore.store import AzureStore, GCSStore

from pipeline.errors import (
    AlreadyExists,
    Conflict,
    DecoderHung,
    InputChanged,
    InputMissing,
    ObjectMissing,
    OutputUnsupported,
    PipelineError,
    StorageError,
    StorageRefused,
    StorageUrlError,
    WorkerDied,
)
from pipeline.storage import InputStore, OutputStore, StorageOptions, open_output, s3
from pipeline.storage.clouds import client
from pipeline.storage.failures import our_errors
from pipeline.storage.globs import hidden_part, is_excluded, is_included
from pipeline.storage.ignored import Ignored
from pipeline.storage.inputs import BLOCK_BYTES
from pipeline.storage.objects import Fetched, Location, locate
from tests.support.azurite import Azurite
from tests.support.google_store import GoogleStore
from tests.support.proxy import Proxy, running_proxy
from tests.support.s3 import S3Server

RACERS = 8
CLOCKS_APART = timedelta(minutes=1)


# ---- outputs: one contract, two stores


@pytest.fixture
def local_output(tmp_path: Path) -> OutputStore:
    return open_output(str(tmp_path / "out"))


@pytest.fixture
def s3_output(s3_bucket: str) -> OutputStore:
    return open_output(f"s3://{s3_bucket}/some/out/")


class OutputStoreContract:
    """What every output store promises; a subclass gives the `store`."""

    def test_probe_accepts_it_and_leaves_nothing(self, store: OutputStore) -> None:
        store.probe()
        store.put("a", b"")
        assert store.list("") == ["a"]
        assert _files_of(store) == ["a"]

    def test_create_is_repeated_if_what_refused_it_is_gone_by_now(
        self, store: OutputStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A lease may be given back at that moment."""
        store.create("a", b"one")
        get = type(store).get

        def late(self: OutputStore, key: str) -> Fetched:
            self.delete(key)
            return get(self, key)

        with monkeypatch.context() as patch:
            patch.setattr(type(store), "get", late)
            etag = store.create("a", b"two")
        assert store.get("a") == (b"two", etag)

    def test_get_gives_what_create_wrote(self, store: OutputStore) -> None:
        etag = store.create("annotations/a.parquet", b"one")
        assert store.get("annotations/a.parquet") == (b"one", etag)

    def test_create_loses_against_other_bytes(self, store: OutputStore) -> None:
        store.create("a", b"one")
        with pytest.raises(AlreadyExists, match="/a: already exists"):
            store.create("a", b"two")
        assert store.get("a").data == b"one"

    def test_create_again_with_equal_bytes_is_ours(self, store: OutputStore) -> None:
        assert store.create("a", b"one") == store.create("a", b"one")

    def test_create_race_has_one_winner(self, store: OutputStore) -> None:
        results = _race(lambda i: store.create("plan/0", b"racer %d" % i))
        assert [type(r) for r in results if not isinstance(r, str)] == [AlreadyExists] * 7
        winner = next(i for i, r in enumerate(results) if isinstance(r, str))
        assert store.get("plan/0") == (b"racer %d" % winner, results[winner])

    def test_replace_needs_the_etag_of_now(self, store: OutputStore) -> None:
        first = store.create("a", b"one")
        second = store.replace("a", b"two", first)
        with pytest.raises(Conflict):
            store.replace("a", b"three", first)
        assert store.get("a") == (b"two", second)

    def test_replace_again_with_equal_bytes_is_ours(self, store: OutputStore) -> None:
        first = store.create("a", b"one")
        assert store.replace("a", b"two", first) == store.replace("a", b"two", first)

    def test_replace_of_what_is_gone_is_a_conflict(self, store: OutputStore) -> None:
        etag = store.create("a", b"one")
        store.delete("a")
        with pytest.raises(Conflict):
            store.replace("a", b"two", etag)

    def test_replace_race_has_one_winner(self, store: OutputStore) -> None:
        before = store.create("lease", b"nobody")
        results = _race(lambda i: store.replace("lease", b"racer %d" % i, before))
        assert [type(r) for r in results if not isinstance(r, str)] == [Conflict] * 7

    def test_put_overwrites(self, store: OutputStore) -> None:
        store.put("_SUCCESS.json", b"one")
        store.put("_SUCCESS.json", b"two")
        assert store.get("_SUCCESS.json").data == b"two"

    def test_get_and_open_of_nothing_is_missing(self, store: OutputStore) -> None:
        with pytest.raises(ObjectMissing, match=r"no such (object|file or folder)"):
            store.get("nothing")
        with pytest.raises(ObjectMissing, match=r"no such (object|file or folder)"):
            store.open("nothing")

    def test_delete_needs_the_etag_if_given(self, store: OutputStore) -> None:
        first = store.create("lease", b"one")
        second = store.replace("lease", b"two", first)
        with pytest.raises(Conflict):
            store.delete("lease", first)
        store.delete("lease", second)
        store.delete("lease", second)
        assert store.list("") == []

    def test_list_gives_one_level_sorted(self, store: OutputStore) -> None:
        assert store.list("annotations/") == []
        for key in ("annotations/b", "annotations/a", "annotations/x/y", "annotations-2/c"):
            store.create(key, b"")
        assert store.list("annotations/") == ["annotations/a", "annotations/b"]
        assert store.list("annotations") == ["annotations/a", "annotations/b"]
        assert store.list("") == []

    def test_times_tell_when_each_was_written(self, store: OutputStore) -> None:
        before = datetime.now(UTC) - CLOCKS_APART
        store.create("annotations/b.parquet", b"b")
        store.create("annotations/a.parquet", b"a")
        store.create("annotations/deeper/c.parquet", b"c")
        times = store.times("annotations/")
        assert list(times) == store.list("annotations/")
        assert all(before <= time <= datetime.now(UTC) + CLOCKS_APART for time in times.values())
        assert store.times("nothing/") == {}

    def test_list_sees_what_another_client_wrote(self, store: OutputStore) -> None:
        assert store.list("") == []
        other: OutputStore = pickle.loads(pickle.dumps(store))
        other.create("a", b"")
        assert store.list("") == ["a"]
        other.delete("a")
        assert store.list("") == []

    def test_partials_are_what_dead_writers_leave(self, store: OutputStore) -> None:
        for key in ("a/x", "a/.x.0123.tmp", "a/.probe-0123", "a/.lock", "a/b/.y.tmp", ".probe-4"):
            store.put(key, b"")
        assert store.partials("a/") == ["a/.probe-0123", "a/.x.0123.tmp"]
        assert store.partials("") == [".probe-4"]
        assert store.list("a/") == ["a/x"]

    def test_list_is_complete_beyond_a_page(self, store: OutputStore) -> None:
        self.check_pages(store, 25)

    @staticmethod
    def check_pages(store: OutputStore, count: int) -> None:
        keys = [f"ledger/{i:05d}" for i in range(count)]
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda key: store.put(key, b""), keys))
        assert store.list("ledger/") == keys

    def test_parquet_metadata_is_readable_from_open(self, store: OutputStore) -> None:
        buffer = io.BytesIO()
        pq.write_table(pa.table({"x": list(range(10))}), buffer)
        store.create("a.parquet", buffer.getvalue())
        with store.open("a.parquet") as file:
            assert pq.read_metadata(file).num_rows == 10

    @pytest.mark.parametrize("key", ["../a", "/a", "a//b", "a/./b", "a/"])
    def test_keys_stay_within_the_output(self, store: OutputStore, key: str) -> None:
        with pytest.raises(ValueError, match="not a relative key"):
            store.put(key, b"")


class TestLocalStore(OutputStoreContract):
    @pytest.fixture
    def store(self, local_output: OutputStore) -> OutputStore:
        return local_output

    @pytest.mark.parametrize("failing", ["fsync", "link"])
    def test_nothing_is_visible_after_a_failed_write(
        self, store: OutputStore, monkeypatch: pytest.MonkeyPatch, failing: str
    ) -> None:
        store.put("other", b"")

        def fail(*_args: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as broken:
            broken.setattr(os, failing, fail)
            with pytest.raises(StorageError, match="No space left"):
                store.create("a", b"one")
        assert _files_of(store) == ["other"]
        store.create("a", b"one")

    def test_left_over_temporary_files_are_ignored(self, store: OutputStore) -> None:
        store.create("a", b"one")
        folder = Path(locate(store.uri).path)
        (folder / ".a.0123.tmp").write_bytes(b"half")  # as a killed process leaves it
        assert store.list("") == ["a"]
        store.replace("a", b"two", store.get("a").etag)
        assert store.get("a").data == b"two"

    def test_no_hard_links_is_unsupported(
        self, store: OutputStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_args: object) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", fail)
        with pytest.raises(OutputUnsupported, match="hard links"):
            store.probe()

    def test_writes_of_one_size_in_one_clock_tick_differ(self, store: OutputStore) -> None:
        etags = {store.get("a").etag for i in range(20) if store.put("a", b"%03d" % i) is None}
        assert len(etags) == 20


class BucketContract(OutputStoreContract):
    """What the network does to a store behind it; a subclass says how it is reached."""

    attempts: tuple[ModuleType, str]  # of a request

    @staticmethod
    def endpoint_url() -> str:
        raise NotImplementedError

    def proxy(self, **faults: Any) -> AbstractContextManager[Proxy]:
        return running_proxy(self.endpoint_url(), **faults)

    def through(self, proxy: Proxy, store: OutputStore) -> OutputStore:
        path = urlsplit(self.endpoint_url()).path
        options = StorageOptions(endpoint_url=proxy.endpoint_url + path)
        return open_output(store.uri, options)

    def test_nothing_is_visible_after_a_broken_upload(
        self, store: OutputStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(*self.attempts, 1)
        with self.proxy(cut_request_after=100_000) as broken, pytest.raises(StorageError):
            self.through(broken, store).create("a", bytes(10**6))
        assert store.list("") == []

    def test_create_whose_answer_was_lost_is_ours(self, store: OutputStore) -> None:
        with self.proxy(lose_answers=1) as lossy:
            etag = self.through(lossy, store).create("a", b"one")
        methods = [request.partition(" ")[0] for request in lossy.requests]
        assert methods.count("PUT") == 2  # botocore's own retry met its first try: 412
        assert store.get("a") == (b"one", etag)

    def test_replace_whose_answer_was_lost_is_ours(self, store: OutputStore) -> None:
        first = store.create("a", b"one")
        with self.proxy(lose_answers=1) as lossy:
            etag = self.through(lossy, store).replace("a", b"two", first)
        assert store.get("a") == (b"two", etag)

    def test_write_whose_every_answer_is_lost_is_settled_by_the_bytes(
        self, store: OutputStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(*self.attempts, 2)
        with self.proxy(lose_answers=99) as lossy:
            self.through(lossy, store).create("a", b"one")
            with pytest.raises(AlreadyExists):
                self.through(lossy, store).create("a", b"two")
        assert store.get("a").data == b"one"

    def test_write_that_never_arrives_is_retriable(
        self, store: OutputStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(*self.attempts, 2)
        etag = store.create("a", b"one")
        with self.proxy(refuse_puts=b"") as deaf:
            with pytest.raises(StorageError, match="nothing is lost") as creating:
                self.through(deaf, store).create("b", b"one")
            with pytest.raises(StorageError, match="nothing is lost"):
                self.through(deaf, store).replace("a", b"two", etag)
        assert creating.value.retriable

    @pytest.mark.parametrize(
        ("status", "error", "is_retriable"),
        [
            (400, StorageRefused, False),
            (403, StorageRefused, False),
            (409, StorageError, True),  # AWS: a conditional write at the same time, try again
            (501, OutputUnsupported, False),
            (503, StorageError, True),
        ],
    )
    def test_refused_write_tells_whether_to_try_again(
        self,
        store: OutputStore,
        monkeypatch: pytest.MonkeyPatch,
        status: int,
        error: type[PipelineError],
        is_retriable: bool,
    ) -> None:
        monkeypatch.setattr(*self.attempts, 1)
        answer = b"HTTP/1.1 %d No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status
        with self.proxy(refuse_puts=answer) as refusing, pytest.raises(error) as refused:
            self.through(refusing, store).create("a", b"one")
        assert type(refused.value) is error
        assert refused.value.retriable is is_retriable


class TestS3Store(BucketContract):
    attempts = (s3, "REQUEST_ATTEMPTS")

    @pytest.fixture
    def store(self, s3_output: OutputStore) -> OutputStore:
        return s3_output

    @staticmethod
    def endpoint_url() -> str:
        return os.environ["AWS_ENDPOINT_URL"]

    def test_list_is_complete_beyond_a_page(
        self, store: OutputStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        call = s3.S3._call

        def in_small_pages(client: s3.S3, method: str, **sent: Any) -> dict[str, Any]:
            few = {"MaxKeys": 10} if method == "list_objects_v2" else {}
            return call(client, method, **sent, **few)

        monkeypatch.setattr(s3.S3, "_call", in_small_pages)
        self.check_pages(store, 25)

    def test_large_object_keeps_the_condition(self, store: OutputStore) -> None:
        store.create("a", bytes(110 * 2**20))  # s3fs would go multipart at 100 MiB
        with pytest.raises(AlreadyExists):
            store.create("a", b"other")

    @pytest.mark.parametrize("ignored", ["If-None-Match", "If-Match"])
    def test_probe_refuses_a_store_that_ignores(self, s3_bucket: str, ignored: str) -> None:
        with careless_store(ignored) as (endpoint_url, objects):
            store = open_output(f"s3://{s3_bucket}/out", StorageOptions(endpoint_url=endpoint_url))
            with pytest.raises(OutputUnsupported, match=f"does not honour {ignored}"):
                store.probe()
        assert objects == {}

    def test_probe_names_a_missing_bucket(self, s3_bucket: str) -> None:
        with pytest.raises(ObjectMissing, match="the bucket does not exist; create it"):
            open_output(f"s3://{s3_bucket}-not/out").probe()


class TestAzureStore(BucketContract):
    attempts = (client, "_ATTEMPTS")

    @pytest.fixture
    def store(self, container: str) -> OutputStore:
        return open_output(f"az://{container}/some/out/")

    @staticmethod
    def endpoint_url() -> str:
        return os.environ["AZURE_STORAGE_ENDPOINT"]

    @pytest.mark.slow
    def test_list_is_complete_beyond_a_page(self, store: OutputStore) -> None:
        self.check_pages(store, 5100)

    def test_probe_names_a_missing_container(self, container: str) -> None:
        with pytest.raises(ObjectMissing, match="the bucket does not exist; create it"):
            open_output(f"az://{container}-not/out").probe()

    def test_the_account_can_stand_in_the_url(
        self, azurite: Azurite, container: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        open_output(f"az://{container}/out").put("a", b"one")
        monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME")
        uri = f"abfs://{container}@{azurite.account}.dfs.core.windows.net/out"
        assert open_output(uri).get("a").data == b"one"
        with pytest.raises(StorageUrlError, match="AZURE_STORAGE_ACCOUNT_NAME"):
            open_output("az://another/out").get("a")


class TestGoogleStore(OutputStoreContract):
    """Against a small server of our own, not Google's."""

    @pytest.fixture
    def store(self, google_store: GoogleStore) -> OutputStore:
        return open_output(f"gs://{google_store.bucket}/some/out/")

    def test_list_is_complete_beyond_a_page(
        self, store: OutputStore, google_store: GoogleStore
    ) -> None:
        google_store.keys_per_page = 10
        self.check_pages(store, 25)

    def test_probe_refuses_a_store_that_ignores_conditions(
        self, store: OutputStore, google_store: GoogleStore
    ) -> None:
        google_store.ignored = "x-goog-if-generation-match"
        with pytest.raises(OutputUnsupported, match="does not honour If-None-Match"):
            store.probe()
        assert google_store.objects == {}

    def test_probe_names_a_missing_bucket(self, google_store: GoogleStore) -> None:
        with pytest.raises(ObjectMissing, match="the bucket does not exist; create it"):
            open_output(f"gs://{google_store.bucket}-not/out").list("")


def test_output_of_another_scheme_is_unsupported() -> None:
    with pytest.raises(OutputUnsupported, match="local directory, to s3://, gs:// or az://"):
        open_output("memory://out")


def test_output_uri_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_output("out/").uri == f"file://{tmp_path}/out"
    assert open_output(f"file://{tmp_path}/out/").uri == f"file://{tmp_path}/out"
    assert open_output("s3a://bucket/out/").uri == "s3://bucket/out"


# ---- inputs: one contract, three kinds of places


@dataclass(frozen=True)
class Place:
    """Somewhere to put inputs, written without our own code."""

    uri: str
    write: Callable[[str, bytes], None]
    remove: Callable[[str], None]


def _fsspec_place(uri: str) -> Place:
    fs, root = fsspec.core.url_to_fs(uri, auto_mkdir=True)
    return Place(
        uri,
        lambda name, data: fs.pipe_file(f"{root}/{name}", data),
        lambda name: fs.rm_file(f"{root}/{name}"),
    )


class InputContract:
    """What every place of inputs promises; a subclass gives the `place`."""

    has_line_breaks = True  # in names

    def test_list_is_recursive_and_sorted(self, place: Place) -> None:
        for name in ("b.tar", "a.tar", "sub/c.tar"):
            place.write(name, name.encode())
        found = InputStore().list(place.uri).objects
        assert [info.uri for info in found] == [
            f"{place.uri}/{name}" for name in ("a.tar", "b.tar", "sub/c.tar")
        ]
        assert [info.size_bytes for info in found] == [5, 5, 9]
        assert all(info.etag for info in found)

    def test_list_applies_patterns(self, place: Place) -> None:
        for name in ("a.tar", "a.json", "sub/c.tar", "sub/skip.tar"):
            place.write(name, b"x")
        found = InputStore().list(place.uri, include=("*.tar",), exclude=("sub/skip*",)).objects
        assert [info.uri for info in found] == [f"{place.uri}/a.tar", f"{place.uri}/sub/c.tar"]

    def test_list_hides_bookkeeping_alone_and_counts_it(self, place: Place) -> None:
        """A NAS keeps thumbnails in @eaDir (immich-go#319), cameras write _DSC0101.JPG."""
        hidden = (
            *("_SUCCESS", ".crc", "_temporary/a", "_temporary/b", "Thumbs.db", "sub/.x/a"),
            *("@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg", "#recycle/o.jpg", "$RECYCLE.BIN/x.jpg"),
        )
        shown = ("_DSC0101.JPG", "__cover.png", "_selects/a", "_split=1/a", "a", "sub/_MG_1.jpg")
        for name in (*hidden, *shown):
            place.write(name, b"")
        found = InputStore().list(place.uri)
        assert [info.uri for info in found.objects] == [f"{place.uri}/{name}" for name in shown]
        [ignored] = found.ignored
        assert (ignored.reason, ignored.count) == ("hidden", 8)  # a folder once
        assert f"{place.uri}/_temporary" in ignored.first

    def test_list_counts_what_patterns_leave(self, place: Place) -> None:
        for name in ("a.tar", "b.json", "sub/c.json", "sub/skip.tar"):
            place.write(name, b"x")
        found = InputStore().list(place.uri, include=("*.tar",), exclude=("skip*",))
        assert [info.uri for info in found.objects] == [f"{place.uri}/a.tar"]
        assert {each.reason: each.count for each in found.ignored} == {
            "not in --include": 2,
            "left out by --exclude": 1,
        }

    @pytest.mark.parametrize(
        ("typed", "names"),
        [
            ("*.tar", ["a-00.tar", "a-01.tar", "b.tar"]),
            ("a-{00..01}.tar", ["a-00.tar", "a-01.tar"]),
            ("{b,sub/c}.tar", ["b.tar", "sub/c.tar"]),
            ("a-0[1-9].tar", ["a-01.tar"]),
            ("s?b", ["sub/c.tar"]),
            ("s*/", ["sub/c.tar"]),
            ("**/c.tar", ["sub/c.tar"]),
        ],
    )
    def test_list_expands_wildcards_and_braces(
        self, place: Place, typed: str, names: list[str]
    ) -> None:
        for name in ("a-00.tar", "a-01.tar", "b.tar", "sub/c.tar"):
            place.write(name, b"x")
        found = InputStore().list(f"{place.uri}/{typed}")
        assert [info.uri for info in found.objects] == [f"{place.uri}/{name}" for name in names]
        assert found.root.uri == f"{place.uri}/"

    def test_a_name_that_is_there_is_no_pattern(self, place: Place) -> None:
        """People name folders so (datasets#7468)."""
        for name in ("trip [2019]/a{1}.jpg", "trip [2019]/*.jpg", "trip 2/a1.jpg"):
            place.write(name, b"x")
        found = InputStore().list(f"{place.uri}/trip [2019]")
        assert len(found.objects) == 2
        for name in ("trip [2019]/a{1}.jpg", "trip [2019]/*.jpg"):
            [info] = InputStore().list(f"{place.uri}/{name}").objects
            assert info.uri == f"{place.uri}/{name}"

    def test_list_of_one_object_gives_that_one(self, place: Place) -> None:
        place.write("_a.tar", b"one")
        place.write("_a.tar.json", b"another")
        [info] = InputStore().list(f"{place.uri}/_a.tar").objects
        assert (info.uri, info.size_bytes) == (f"{place.uri}/_a.tar", 3)

    def test_list_of_nothing_is_missing(self, place: Place) -> None:
        place.write("folder/a.json", b"")
        with pytest.raises(InputMissing, match=r"nothing to read|no such (object|file)"):
            InputStore().list(f"{place.uri}/fold")
        with pytest.raises(InputMissing, match="the patterns"):
            InputStore().list(place.uri, include=("*.tar",))

    @pytest.mark.parametrize(
        "name",
        [
            *("a b#c%20é+&.tar", "std::vector.tar", "zip::a.tar", "%41.tar", "~a.tar", "-a.tar"),
            *("quote\"s'.tar", "日本/😀.tar", "a;b=c@d:e.tar", "new\nline.tar"),
        ],
    )
    def test_names_need_no_escape(self, place: Place, name: str) -> None:
        if "\n" in name and not self.has_line_breaks:
            pytest.skip("obstore cannot hold such a name; a test of its own says so")
        place.write(name, b"one")
        [info] = InputStore().list(place.uri).objects
        assert info.uri == f"{place.uri}/{name}"
        assert InputStore().read_whole(info.uri, max_bytes=10, planned=info) == b"one"
        InputStore().verify(info)
        with InputStore().open(info) as file:
            assert file.read() == b"one"

    def test_open_is_seekable_over_many_blocks(self, place: Place) -> None:
        data = os.urandom(2 * BLOCK_BYTES + 17)
        place.write("a", data)
        [info] = InputStore().list(place.uri).objects
        with InputStore().open(info) as file:
            assert file.read(10) == data[:10]
            assert file.seek(-17, io.SEEK_END) == 2 * BLOCK_BYTES
            assert file.read() == data[-17:]
            assert file.read() == b""
            file.seek(5)
            assert file.read() == data[5:]

    def test_open_of_an_empty_object(self, place: Place) -> None:
        place.write("a", b"")
        [info] = InputStore().list(place.uri).objects
        with InputStore().open(info) as file:
            assert file.read() == b""
        place.write("a", b"more")
        with pytest.raises(InputChanged):
            InputStore().open(info)

    def test_overwritten_before_open_is_changed(self, place: Place) -> None:
        place.write("a", b"planned")
        [info] = InputStore().list(place.uri).objects
        InputStore().verify(info)
        place.write("a", b"another")
        with pytest.raises(InputChanged, match="/a: changed"), InputStore().open(info) as file:
            file.read()
        with pytest.raises(InputChanged, match="/a: changed since it was planned"):
            InputStore().verify(info)
        with pytest.raises(InputChanged):
            InputStore().read_range(info.uri, 0, 3, info.etag)

    def test_overwritten_in_mid_read_is_changed(self, place: Place) -> None:
        place.write("a", bytes(3 * BLOCK_BYTES))
        [info] = InputStore().list(place.uri).objects
        with InputStore().open(info) as file:
            assert file.read(10) == bytes(10)
            place.write("a", b"\1" * (3 * BLOCK_BYTES))
            with pytest.raises(InputChanged):
                file.read()

    def test_vanished_in_mid_read_is_missing(self, place: Place) -> None:
        place.write("a", bytes(3 * BLOCK_BYTES))
        [info] = InputStore().list(place.uri).objects
        with InputStore().open(info) as file:
            file.read(10)
            place.remove("a")
            with pytest.raises(InputMissing, match=r"no such (object|file or folder)"):
                file.read()
        with pytest.raises(InputMissing):
            InputStore().verify(info)

    def test_change_is_no_format_error_for_tarfile_or_pyarrow(self, place: Place) -> None:
        place.write("a", bytes(BLOCK_BYTES))
        [info] = InputStore().list(place.uri).objects
        place.write("a", b"\1" * BLOCK_BYTES)
        with InputStore().open(info) as file, pytest.raises(InputChanged):
            list(TarFile.open(fileobj=file, mode="r|"))
        with InputStore().open(info) as file, pytest.raises(InputChanged):
            pq.ParquetFile(file)

    def test_read_range_is_exact(self, place: Place) -> None:
        place.write("a", b"0123456789")
        assert InputStore().read_range(f"{place.uri}/a", 3, 4) == b"3456"
        with pytest.raises(InputChanged):
            InputStore().read_range(f"{place.uri}/a", 8, 4)
        with pytest.raises(InputMissing):
            InputStore().read_range(f"{place.uri}/b", 0, 1)


class TestLocalInput(InputContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return _fsspec_place(f"file://{tmp_path}/in")

    @pytest.mark.parametrize("spelling", ["{}", "{}/", "file://{}", "local://{}"])
    def test_paths_and_file_urls_are_the_same(self, tmp_path: Path, spelling: str) -> None:
        (tmp_path / "a").write_bytes(b"one")
        [info] = InputStore().list(spelling.format(tmp_path)).objects
        assert info.uri == f"file://{tmp_path}/a"

    def test_links_are_followed_but_not_in_circles(self, tmp_path: Path) -> None:
        (tmp_path / "in/sub").mkdir(parents=True)
        (tmp_path / "blob").write_bytes(b"one")
        (tmp_path / "in/sub/a").symlink_to(tmp_path / "blob")
        (tmp_path / "in/again").symlink_to(tmp_path / "in/sub")
        (tmp_path / "in/sub/circle").symlink_to(tmp_path / "in")
        found = [info.uri for info in InputStore().list(f"{tmp_path}/in").objects]
        assert f"file://{tmp_path}/in/again/a" in found
        assert f"file://{tmp_path}/in/sub/a" in found

    def test_a_broken_link_is_ignored_by_name_and_can_be_excluded(self, tmp_path: Path) -> None:
        (tmp_path / "a.jpg").symlink_to(tmp_path / "nowhere")
        (tmp_path / "b.jpg").write_bytes(b"one")
        found = InputStore().list(str(tmp_path))
        assert [info.uri for info in found.objects] == [f"file://{tmp_path}/b.jpg"]
        [ignored] = found.ignored
        assert ignored == Ignored(
            reason="broken links", count=1, first=(f"file://{tmp_path}/a.jpg",)
        )
        [ignored] = InputStore().list(str(tmp_path), exclude=("a*",)).ignored
        assert ignored.reason == "left out by --exclude"

    def test_a_backslash_is_a_part_of_a_name(self, tmp_path: Path) -> None:
        (tmp_path / "back\\slash.jpg").write_bytes(b"one")
        [info] = InputStore().list(str(tmp_path)).objects
        assert info.uri == f"file://{tmp_path}/back\\slash.jpg"

    def test_a_pipe_is_ignored_by_name(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "a.jpg")
        (tmp_path / "b.jpg").write_bytes(b"one")
        assert [each.reason for each in InputStore().list(str(tmp_path)).ignored] == [
            "special files"
        ]

    @pytest.mark.parametrize("host", ["", "localhost"])
    def test_a_file_url_is_percent_decoded(self, tmp_path: Path, host: str) -> None:
        (tmp_path / "a b+é%.jpg").write_bytes(b"one")
        [info] = InputStore().list(f"file://{host}{tmp_path}/a%20b+%C3%A9%25.jpg").objects
        assert info.uri == f"file://{tmp_path}/a b+é%.jpg"

    def test_a_path_is_not_decoded(self, tmp_path: Path) -> None:
        (tmp_path / "%41.jpg").write_bytes(b"one")
        for typed in (f"{tmp_path}/%41.jpg", f"file://{tmp_path}/%41.jpg"):
            [info] = InputStore().list(typed).objects
            assert info.uri == f"file://{tmp_path}/%41.jpg"


class TestMemoryInput(InputContract):
    """Stands for any other fsspec file system."""

    @pytest.fixture
    def place(self) -> Iterator[Place]:
        yield _fsspec_place("memory:///in")
        fsspec.filesystem("memory").store.clear()


class TestS3Input(InputContract):
    @pytest.fixture
    def place(self, s3_server: S3Server, s3_bucket: str) -> Place:
        client = s3_server.client()
        return Place(
            f"s3://{s3_bucket}/in",
            lambda name, data: client.put_object(Bucket=s3_bucket, Key=f"in/{name}", Body=data),
            lambda name: client.delete_object(Bucket=s3_bucket, Key=f"in/{name}"),
        )

    def test_directory_markers_are_ignored(self, place: Place) -> None:
        for name in ("", "sub/", "sub_$folder$", "sub/a"):
            place.write(name, b"")
        assert [info.uri for info in InputStore().list(place.uri).objects] == [f"{place.uri}/sub/a"]

    def test_an_empty_object_beside_a_folder_of_its_name_is_the_folder(self, place: Place) -> None:
        """S3 consoles and some clients mark folders so (s3fs#999)."""
        place.write("", b"")
        place.write("mark", b"")
        place.write("mark/a", b"x")
        [info] = InputStore().list(f"{place.uri}/mark").objects
        assert info.uri == f"{place.uri}/mark/a"

    def test_whole_bucket_is_an_input(self, place: Place) -> None:
        place.write("a", b"")
        bucket_uri = place.uri.removesuffix("/in")
        for spelling in (bucket_uri, bucket_uri + "/"):
            assert [info.uri for info in InputStore().list(spelling).objects] == [f"{place.uri}/a"]

    def test_body_that_breaks_is_fetched_again(self, place: Place) -> None:
        data = os.urandom(10**6)
        place.write("a", data)
        [info] = InputStore().list(place.uri).objects
        with proxy(cut_bodies=2) as flaky, _reader(flaky).open(info) as file:
            assert file.read() == data

    def test_body_that_keeps_breaking_is_retriable(self, place: Place) -> None:
        place.write("a", os.urandom(10**6))
        [info] = InputStore().list(place.uri).objects
        with (
            proxy(cut_bodies=99) as broken,
            _reader(broken).open(info) as file,
            pytest.raises(StorageError, match="in/a") as breaking,
        ):
            file.read()
        assert breaking.value.retriable

    def test_missing_bucket_is_named(self, s3_bucket: str) -> None:
        with pytest.raises(InputMissing, match=f"s3://{s3_bucket}-not/.*bucket does not exist"):
            InputStore().list(f"s3://{s3_bucket}-not/in")


class TestAzureInput(InputContract):
    has_line_breaks = False

    @pytest.fixture
    def place(self, azurite: Azurite, container: str) -> Place:
        plain = azurite.container(container)
        return Place(
            f"az://{container}/in",
            lambda name, data: plain.put(f"in/{name}", data),
            lambda name: plain.delete(f"in/{name}"),
        )

    def test_an_empty_object_beside_a_folder_of_its_name_is_the_folder(self, place: Place) -> None:
        """A container with directories lists them so."""
        place.write("mark", b"")
        place.write("mark/a", b"x")
        [info] = InputStore().list(f"{place.uri}/mark").objects
        assert info.uri == f"{place.uri}/mark/a"


class TestGoogleInput(InputContract):
    """Against a small server of our own, not Google's."""

    has_line_breaks = False

    def test_a_name_that_obstore_cannot_hold_is_refused(self, place: Place) -> None:
        place.write("new\nline.tar", b"one")
        with pytest.raises(StorageRefused, match="/in/: holds a name that cannot be used"):
            InputStore().list(place.uri)
        with pytest.raises(StorageRefused, match=r"new\\nline.tar'.*rename the object"):
            InputStore().read_whole(f"{place.uri}/new\nline.tar", max_bytes=10)

    @pytest.fixture
    def place(self, google_store: GoogleStore) -> Place:
        return Place(
            f"gs://{google_store.bucket}/in",
            lambda name, data: google_store.put(f"{google_store.bucket}/in/{name}", data),
            lambda name: google_store.objects.pop(f"{google_store.bucket}/in/{name}"),
        )


# ---- access: credentials, endpoints, URLs


@pytest.fixture
def profiles(tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named profiles `good` (which also names the endpoint) and `bad`, and no environment."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    config = tmp_path / "config"
    config.write_text(
        f"[profile good]\nendpoint_url = {s3_server.endpoint_url}\n"
        f"aws_access_key_id = {s3_server.access_key}\n"
        f"aws_secret_access_key = {s3_server.secret_key}\n"
        f"[profile bad]\nendpoint_url = {s3_server.endpoint_url}\n"
        f"aws_access_key_id = {s3_server.access_key}\n"
        "aws_secret_access_key = not-the-secret\n"
        f"[profile empty]\nendpoint_url = {s3_server.endpoint_url}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(s3, "_file_system", s3._file_system.__wrapped__)


def test_profile_gives_credentials_and_endpoint(s3_server: S3Server, profiles: None) -> None:
    bucket = s3_server.make_bucket("profile-bucket")
    open_output(f"s3://{bucket}/out", StorageOptions(profile="good")).probe()


def test_options_win_over_the_environment(
    s3_bucket: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    open_output(f"s3://{s3_bucket}", StorageOptions(endpoint_url=s3_server.endpoint_url)).probe()


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ("bad", "access refused .*AWS_ACCESS_KEY_ID"),
        ("empty", "Unable to locate credentials.*AWS_ACCESS_KEY_ID"),
        ("unknown", r"profile \(unknown\) could not be found"),
    ],
)
def test_bad_credentials_say_the_remedy_and_no_secret(
    s3_server: S3Server, profiles: None, profile: str, message: str
) -> None:
    store = InputStore(StorageOptions(profile=profile))
    with pytest.raises(StorageRefused, match=message) as refused:
        store.list("s3://some-bucket/in")
    assert not refused.value.retriable
    shown = "".join(traceback.format_exception(refused.value))
    assert s3_server.secret_key not in shown
    assert "not-the-secret" not in shown


def test_an_archived_object_is_named() -> None:
    """S3 answers 403, as for wrong credentials (mountpoint-s3#152)."""
    answer = {"Error": {"Code": "InvalidObjectState"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
    with (
        pytest.raises(StorageRefused, match=r"a\.tar: it is archived .*; restore it"),
        our_errors("s3://b/a.tar"),
    ):
        raise ClientError(answer, "GetObject")


def test_unreachable_endpoint_is_retriable(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "REQUEST_ATTEMPTS", 1)
    store = InputStore(StorageOptions(endpoint_url="http://127.0.0.1:9"))
    with pytest.raises(StorageError, match="check the network and the endpoint URL") as refused:
        store.list(f"s3://{s3_bucket}/in")
    assert refused.value.retriable


@pytest.mark.parametrize(
    "uri",
    [
        "s3://AKIA:hush@bucket/in",
        "s3://AKIA:hush/more@bucket/in",
        "s3://hush@bucket/in",
        "https://me:hush@example.org/in",
        "https://example.org/in?X-Amz-Signature=hush",
        "https://account.blob.example.org/in?sv=1&sig=hush",
    ],
)
def test_url_with_a_secret_is_refused_without_repeating_it(uri: str) -> None:
    with pytest.raises(StorageUrlError, match="remove them") as refused:
        InputStore().list(uri)
    assert "hush" not in "".join(traceback.format_exception(refused.value))
    with pytest.raises(StorageUrlError):
        open_output(uri)


@pytest.mark.parametrize(
    "uri",
    [
        *("s3://", "s3:///in", "nosuch://a/b", "", "file://", "a\0b"),
        *("zip://a::s3://b/c.zip", "simplecache::s3://b/c", "zip::a.zip"),
    ],
)
def test_url_that_we_cannot_use_is_refused(uri: str) -> None:
    with pytest.raises(StorageUrlError):
        InputStore().list(uri)


@pytest.mark.parametrize("endpoint_url", ["http://me:hush@host", "localhost:9000"])
def test_bad_endpoint_is_refused(endpoint_url: str) -> None:
    with pytest.raises(StorageUrlError, match="endpoint URL") as refused:
        StorageOptions(endpoint_url=endpoint_url)
    assert "hush" not in str(refused.value)


def test_user_without_password_is_no_secret() -> None:
    assert locate("abfs://box@account.dfs.example.org/a") == Location(
        "abfs", "box@account.dfs.example.org/a"
    )


@pytest.mark.parametrize(
    ("path", "include", "exclude", "wanted"),
    [
        ("a/b/c.tar", (), (), True),
        ("a/b/c.tar", ("*.tar",), (), True),
        ("a/b/c.tar", ("a/*.tar",), (), False),
        ("a/b/c.tar", ("a/**/*.tar",), (), True),
        ("a/c.tar", ("a/**/*.tar",), (), True),
        ("a/b/c.tar", ("*.json", "c.*"), (), True),
        ("a/b/c.tar", (), ("c.t?r",), False),
        ("a/b/c.tar", ("*.tar",), ("a/**",), False),
        ("a/_temporary/c.tar", ("*.tar",), (), False),
        ("a/_b/c.tar", ("*.tar",), (), True),
        ("a/b/c.tar", ("c.{json,tar}",), (), True),
        ("a/b/c-07.tar", ("c-{00..09}.tar",), (), True),
        ("a/b/c-07.tar", (), ("c-{00..03}.tar",), True),
        ("a/b/{c}.tar", ("{c}.tar",), (), True),
        ("a/_b=1/c.tar", (), (), True),
        ("a/.c.tar", ("*.tar",), (), False),
    ],
)
def test_patterns(
    path: str, include: tuple[str, ...], exclude: tuple[str, ...], wanted: bool
) -> None:
    is_wanted = is_included(path, include) and not is_excluded(path, exclude)
    assert (is_wanted and hidden_part(path) is None) is wanted


def _subclasses(base: type[PipelineError]) -> Iterator[type[PipelineError]]:
    for child in base.__subclasses__():
        yield child
        yield from _subclasses(child)


def test_errors_have_codes_of_their_own_and_pickle() -> None:
    classes = {PipelineError, *_subclasses(PipelineError)} - {DecoderHung}
    assert len({error.code for error in classes}) == len(classes)
    assert DecoderHung.code == WorkerDied.code  # whoever counts deaths counts it as one
    assert str(pickle.loads(pickle.dumps(InputChanged("s3://b/a: changed")))) == "s3://b/a: changed"


# ---- helpers


def _race(attempt: Callable[[int], str]) -> list[str | Exception]:
    barrier = Barrier(RACERS)

    def run(i: int) -> str | Exception:
        barrier.wait()
        try:
            return attempt(i)
        except PipelineError as error:
            return error

    with ThreadPoolExecutor(RACERS) as pool:
        return list(pool.map(run, range(RACERS)))


def _files_of(store: OutputStore) -> list[str]:
    """All that is there, seen without our own code; a lock may stay."""
    at = locate(store.uri)
    if at.scheme in ("az", "gs"):
        bucket = AzureStore if at.scheme == "az" else GCSStore
        plain = bucket(at.bucket, client_options={"allow_http": True})
        paths = [each["path"] for page in plain.list(at.key) for each in page]
        return [path.removeprefix(at.key + "/") for path in paths]
    fs, root = fsspec.core.url_to_fs(store.uri, skip_instance_cache=True)
    found = [str(name).removeprefix(root + "/") for name in fs.find(root)]
    return [name for name in found if name != ".lock"]


def proxy(**faults: Any) -> AbstractContextManager[Proxy]:
    return running_proxy(os.environ["AWS_ENDPOINT_URL"], **faults)


def _reader(proxy: Proxy) -> InputStore:
    return InputStore(StorageOptions(endpoint_url=proxy.endpoint_url))


@contextmanager
def careless_store(ignored: str) -> Iterator[tuple[str, dict[str, bytes]]]:
    """An S3 server of four verbs that checks no signature and ignores one condition."""
    objects: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self._holds():
                objects[self.path] = body
            self._answer(200 if objects.get(self.path) == body else 412)

        def do_GET(self) -> None:
            data = objects.get(self.path)
            self._answer(404 if data is None else 200, data or b"")

        def do_DELETE(self) -> None:
            objects.pop(self.path, None)
            self._answer(204)

        def _holds(self) -> bool:
            conditions = SimpleNamespace(none=self.headers["If-None-Match"], match="")
            if conditions.none and ignored != "If-None-Match" and self.path in objects:
                return False
            wanted = self.headers["If-Match"]
            return not wanted or ignored == "If-Match" or wanted == self._etag()

        def _etag(self) -> str:
            return '"' + objects.get(self.path, b"").hex() + '"'

        def _answer(self, status: int, data: bytes = b"") -> None:
            self.send_response(status)
            self.send_header("ETag", self._etag())
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", objects
        server.shutdown()
