"""Reads of S3 by obstore, with s3fs behind them, against a real S3 server."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.credentials import Credentials

from pipeline.errors import InputChanged, InputTooLarge
from pipeline.storage import InputStore, StorageOptions, s3
from pipeline.storage.clouds import quick_reads, runtime
from pipeline.storage.clouds.names import is_spelt
from pipeline.storage.clouds.quick_reads import QuickReads
from pipeline.storage.clouds.retries import RETRIES
from pipeline.storage.objects import Location
from tests.support.proxy import running_proxy
from tests.support.s3 import S3Server


@pytest.fixture
def put(s3_server: S3Server, s3_bucket: str) -> Any:
    def put(key: str, data: bytes) -> str:
        s3_server.client().put_object(Bucket=s3_bucket, Key=key, Body=data)
        return f"s3://{s3_bucket}/{key}"

    return put


@pytest.fixture
def no_s3fs(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: s3.S3) -> None:
        raise AssertionError("s3fs was asked")

    monkeypatch.setattr(s3.S3, "_patient", fail)


def test_objects_are_read_without_s3fs(
    put: Any, s3_bucket: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    uri = put("a b#c%20é+&'.tar", b"0123456789")
    [info] = InputStore().list(uri).objects
    request.getfixturevalue("no_s3fs")
    assert InputStore().read_whole(uri, max_bytes=10) == b"0123456789"
    assert InputStore().read_whole(uri, max_bytes=10, planned=info) == b"0123456789"
    assert InputStore().read_range(uri, 2, 3, info.etag) == b"234"
    with InputStore().open(info) as file:
        assert file.read() == b"0123456789"
    assert s3.S3(StorageOptions()).get(Location.of(uri)) == (b"0123456789", info.etag)


def test_a_large_object_is_refused_before_it_is_read(put: Any) -> None:
    uri = put("a", bytes(3 << 20))
    with pytest.raises(InputTooLarge, match=r"/a has more than 2 MiB"):
        InputStore().read_whole(uri, max_bytes=2 << 20)


@pytest.mark.parametrize("name", ["a//b", "line\nbreak", "/a"])
def test_a_name_that_obstore_would_change_is_read_by_s3fs(put: Any, name: str) -> None:
    put("a/b", b"another")
    put("a", b"another")
    assert not is_spelt(name)
    assert InputStore().read_whole(put(name, b"this one"), max_bytes=10) == b"this one"


def test_after_a_failure_s3fs_reads_and_the_retry_is_counted(put: Any, s3_bucket: str) -> None:
    uri, before = put("a", b"one"), RETRIES.total
    with running_proxy(os.environ["AWS_ENDPOINT_URL"], resets=1) as flaky:
        store = InputStore(StorageOptions(endpoint_url=flaky.endpoint_url))
        assert store.read_whole(uri, max_bytes=10) == b"one"
        assert len(flaky.requests) == 2
        assert RETRIES.total == before + 1


def test_a_bucket_rests_after_a_failure(put: Any, s3_bucket: str) -> None:
    put("a", b"one")
    with running_proxy(os.environ["AWS_ENDPOINT_URL"], slow_downs=1) as busy:
        reads = QuickReads(StorageOptions(endpoint_url=busy.endpoint_url), s3_bucket, 5)
        assert reads.whole("a") is None
        assert reads.whole("a") is None
        assert len(busy.requests) == 1


def test_an_answer_is_no_failure(put: Any, s3_bucket: str) -> None:
    put("a", b"one")
    reads = QuickReads(StorageOptions(), s3_bucket, 5)
    assert reads.whole("nothing") is None
    assert reads.span("a", 0, 3, "another-etag") is None
    assert reads.whole("a") is not None


def test_a_forked_process_leaves_obstore_alone(put: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = put("a", b"one")
    InputStore().read_whole(uri, max_bytes=10)
    monkeypatch.setattr(runtime, "_used_in", {os.getppid()})
    monkeypatch.setattr(QuickReads, "_opened", lambda _: pytest.fail("obstore was used"))
    assert InputStore().read_whole(uri, max_bytes=10) == b"one"


def test_the_planned_etag_is_required(put: Any) -> None:
    uri = put("a", b"one")
    with pytest.raises(InputChanged, match=r"/a: changed"):
        InputStore().read_range(uri, 0, 3, "another-etag")


# ---- settings, as botocore has them


@pytest.mark.parametrize(
    ("bucket", "config", "wanted"),
    [
        ("bucket", "region = eu-west-1", ("https://bucket.s3.eu-west-1.amazonaws.com", True)),
        ("my.bucket", "region = eu-west-1", ("https://s3.eu-west-1.amazonaws.com", False)),
        (
            "bucket",
            "region = eu-west-1\nuse_dualstack_endpoint = true",
            ("https://bucket.s3.dualstack.eu-west-1.amazonaws.com", True),
        ),
        (
            "bucket",
            "region = eu-west-1\ns3 =\n  use_accelerate_endpoint = true",
            ("https://bucket.s3-accelerate.amazonaws.com", True),
        ),
        (
            "bucket",
            "region = eu-west-1\nendpoint_url = http://127.0.0.1:9000",
            ("http://127.0.0.1:9000", False),
        ),
        (
            "bucket",
            "region = eu-west-1\nendpoint_url = https://store.example.org/s3\n"
            "s3 =\n  addressing_style = virtual",
            ("https://bucket.store.example.org/s3", True),
        ),
    ],
)
def test_the_endpoint_is_that_of_botocore(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bucket: str,
    config: str,
    wanted: tuple[str, bool],
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    keys = "aws_access_key_id = AKIA\naws_secret_access_key = hush"
    (tmp_path / "config").write_text(f"[profile mine]\n{keys}\n{config}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    session = botocore.session.Session(profile="mine")
    assert quick_reads._endpoint(session, StorageOptions(), bucket) == (*wanted, "eu-west-1")


def test_the_profile_wins_over_the_environment(
    tmp_path: Path, put: Any, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, no_s3fs: None
) -> None:
    uri = put("a", b"one")
    (tmp_path / "config").write_text(
        f"[profile good]\nendpoint_url = {s3_server.endpoint_url}\n"
        f"aws_access_key_id = {s3_server.access_key}\n"
        f"aws_secret_access_key = {s3_server.secret_key}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    for name in ("AWS_SKIP_SIGNATURE", "AWS_VIRTUAL_HOSTED_STYLE_REQUEST"):  # obstore's own
        monkeypatch.setenv(name, "true")
    store = InputStore(StorageOptions(profile="good"))
    assert store.read_whole(uri, max_bytes=10) == b"one"


def test_credentials_are_asked_for_again_before_they_end() -> None:
    """obstore keeps them until 5 minutes before their end; botocore's last 10 minutes or more."""
    current = quick_reads._provider(Credentials("AKIA", "hush", "token"))()
    assert current["token"] == "token"
    assert current["expires_at"] is not None
    left = current["expires_at"] - datetime.now(UTC)
    assert timedelta(minutes=5) < left <= timedelta(minutes=10)
