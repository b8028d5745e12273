"""Models on a store and on the Hub: fetched once per node, whole, and used offline afterwards."""

import json
import os
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest

from kosmos2_core.checkpoint import files as checkpoint_files
from kosmos2_core.checkpoint.files import SHAPES_DIRECTORY, CheckpointFiles, locate_checkpoint
from kosmos2_core.errors import CheckpointError
from pipeline.models import staging
from pipeline.models.cache import cache_folder, made_once
from pipeline.models.staging import stage_model
from pipeline.storage import s3
from tests.support.drivers import exit_code, start
from tests.support.hub import COMMIT, Hub, running_hub
from tests.support.patience import wait_for
from tests.support.proxy import Proxy, running_proxy
from tests.support.s3 import S3Server

DIGEST = locate_checkpoint("shapes").weights_digest()
NAMES = {"config.json", "model.safetensors", "tokenizer.json", "processor_config.json"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KOSMOS2_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def store(s3_server: S3Server, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The S3 server, behind a recorder, with the embedded model in `s3://BUCKET/model/`."""
    for path in SHAPES_DIRECTORY.iterdir():
        put(s3_server, s3_bucket, path.name, path.read_bytes())
    with running_proxy(s3_server.endpoint_url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint_url)
        s3._file_system.cache_clear()  # clients of another endpoint
        yield proxy
    s3._file_system.cache_clear()


def put(server: S3Server, bucket: str, name: str, data: bytes) -> None:
    server.client().put_object(Bucket=bucket, Key=f"model/{name}", Body=data)


def fetched(proxy: Proxy) -> Counter[str]:
    """How often each object was read."""
    paths = (request.removeprefix("GET ") for request in proxy.requests if "GET" in request)
    names = (path.partition("?")[0].rpartition("/")[2] for path in paths if "/model/" in path)
    return Counter(name for name in names if name)


def stage_and_tell(name: str, digest: Path) -> None:
    digest.write_text(str(stage_model(name).digest))


# A folder on a store


@pytest.mark.parametrize("end", ["", "/"])
def test_a_folder_on_a_store_is_copied_once(store: Proxy, s3_bucket: str, end: str) -> None:
    name = f"s3://{s3_bucket}/model{end}"
    files = stage_model(name)
    assert (files.id, files.commit, files.digest) == (name, None, DIGEST)
    found = {path.name: path.read_bytes() for path in files.directory.iterdir()}
    assert found.keys() >= NAMES
    assert "README.md" not in found  # a model is made of data only
    assert found == {key: (SHAPES_DIRECTORY / key).read_bytes() for key in found}
    assert fetched(store) == dict.fromkeys(found, 1)
    assert stage_model(name) == files
    assert fetched(store) == dict.fromkeys(found, 1)


def test_processes_of_a_node_share_one_copy(store: Proxy, s3_bucket: str, tmp_path: Path) -> None:
    digests = [tmp_path / str(number) for number in range(3)]
    processes = [start(stage_and_tell, f"s3://{s3_bucket}/model", file) for file in digests]
    assert [exit_code(process) for process in processes] == [0] * 3
    assert {file.read_text() for file in digests} == {DIGEST}
    assert set(fetched(store).values()) == {1}


def test_the_digest_is_computed_once_per_node(
    store: Proxy, s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = shutil.copytree(SHAPES_DIRECTORY, tmp_path / "local")
    names = [f"s3://{s3_bucket}/model", str(local)]
    expected = [stage_model(name) for name in names]

    def never(self: CheckpointFiles) -> str:
        raise AssertionError("read again")

    monkeypatch.setattr(CheckpointFiles, "weights_digest", never)
    assert [stage_model(name) for name in names] == expected


def test_weights_that_changed_have_another_digest(tmp_path: Path) -> None:
    local = shutil.copytree(SHAPES_DIRECTORY, tmp_path / "local")
    assert stage_model(str(local)).digest == DIGEST
    weights = local / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    os.utime(weights, ns=(1, 1))
    changed = stage_model(str(local)).digest
    assert changed != DIGEST
    assert changed == CheckpointFiles(id="x", directory=local).weights_digest()


def test_a_model_that_changed_on_the_store_is_fetched_again(
    store: Proxy, s3_server: S3Server, s3_bucket: str
) -> None:
    name = f"s3://{s3_bucket}/model"
    first = stage_model(name)
    put(s3_server, s3_bucket, "generation_config.json", b'{"no_repeat_ngram_size": 3}')
    second = stage_model(name)
    assert second.directory != first.directory
    assert second.json("generation_config.json") == {"no_repeat_ngram_size": 3}
    assert first.json("generation_config.json") != second.json("generation_config.json")


def test_a_copy_is_used_when_the_store_is_out_of_reach(
    store: Proxy, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"s3://{s3_bucket}/model"
    files = stage_model(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(s3, "REQUEST_ATTEMPTS", 1)
    s3._file_system.cache_clear()
    assert stage_model(name) == files
    with pytest.raises(CheckpointError, match=f"cannot get the model s3://{s3_bucket}/other"):
        stage_model(f"s3://{s3_bucket}/other")


def test_a_throttled_store_is_asked_again(store: Proxy, s3_bucket: str) -> None:
    store.slow_downs = 3
    assert stage_model(f"s3://{s3_bucket}/model").digest == DIGEST
    assert store.slow_downs == 0


def test_a_process_that_dies_leaves_no_half_copy(
    store: Proxy, s3_bucket: str, cache: Path, tmp_path: Path
) -> None:
    name = f"s3://{s3_bucket}/model"
    store.stall_bodies = 100
    process = start(stage_and_tell, name, tmp_path / "digest")
    wait_for(lambda: any((cache / "models").glob(".*.partial")))
    process.kill()
    assert exit_code(process) == -signal.SIGKILL
    assert [path for path in (cache / "models").iterdir() if path.name[0] != "."] == []
    store.stall_bodies = 0
    files = stage_model(name)
    assert files.digest == DIGEST
    assert not any((cache / "models").glob(".*.partial"))


def test_weights_that_are_not_those_of_the_receipt_are_refused(
    store: Proxy, s3_server: S3Server, s3_bucket: str, cache: Path
) -> None:
    put(s3_server, s3_bucket, staging.RECEIPT, json.dumps({"weights_digest": "0" * 64}).encode())
    with pytest.raises(CheckpointError, match=r"not those that kosmos2-model\.json names"):
        stage_model(f"s3://{s3_bucket}/model")
    assert [path for path in (cache / "models").iterdir() if path.name[0] != "."] == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("s3://BUCKET/nothing", "cannot get the model s3://BUCKET/nothing: .*has nothing to read"),
        ("nonsense://x/model", "cannot be used here"),
        ("s3://key:secret@BUCKET/model", "seems to hold credentials"),
    ],
)
def test_a_folder_that_cannot_be_read_is_named(store: Proxy, s3_bucket: str, name: str, said: str):
    with pytest.raises(CheckpointError, match=said.replace("BUCKET", s3_bucket)):
        stage_model(name.replace("BUCKET", s3_bucket))


def test_any_file_system_will_do() -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    memory = MemoryFileSystem()
    for path in SHAPES_DIRECTORY.iterdir():
        memory.pipe_file(f"/models/tiny/{path.name}", path.read_bytes())
    assert stage_model("memory://models/tiny").digest == DIGEST


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_directory_is_used_where_it_is(scheme: str) -> None:
    files = stage_model(f"{scheme}{SHAPES_DIRECTORY}")
    assert (files.directory, files.digest) == (SHAPES_DIRECTORY, DIGEST)


def test_a_node_without_room_for_a_cache_uses_local_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("KOSMOS2_CACHE", str(tmp_path / "file" / "cache"))
    assert stage_model("shapes").digest == DIGEST


# The hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(checkpoint_files, "_PAUSES_S", (0.01, 0.01))
    with running_hub(SHAPES_DIRECTORY) as running:
        template = running.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", running.url)
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield running


@pytest.mark.parametrize("name", ["owner/tiny", "hf://owner/tiny"])
def test_a_commit_of_the_hub_is_asked_for_once(hub: Hub, name: str) -> None:
    files = stage_model(name)
    assert (files.id, files.commit, files.digest) == ("owner/tiny", COMMIT, DIGEST)
    hub.requests.clear()
    assert stage_model(f"owner/tiny@{COMMIT}") == files
    assert hub.requests == []


def test_a_model_of_the_hub_is_used_offline_afterwards(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = stage_model("owner/tiny")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert stage_model("owner/tiny") == files


def test_a_throttling_hub_is_asked_again(hub: Hub) -> None:
    hub.throttled = 2
    assert stage_model("owner/tiny").digest == DIGEST


def test_a_hub_that_throttles_for_good_is_given_up(hub: Hub) -> None:
    hub.throttled = 1000
    with pytest.raises(CheckpointError, match="cannot get owner/tiny from the hub"):
        stage_model("owner/tiny")


def test_a_model_the_hub_does_not_have_is_not_asked_for_again(hub: Hub) -> None:
    with pytest.raises(CheckpointError, match="cannot get owner/other from the hub"):
        stage_model("owner/other")
    assert len(hub.requests) == 1


# The cache


def test_what_fails_leaves_nothing_and_can_be_made_again(cache: Path) -> None:
    def fails(path: Path) -> None:
        path.write_text("half")
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        made_once(cache / "text", fails)
    assert {path.name for path in cache.iterdir()} == {".text.lock"}
    assert made_once(cache / "text", lambda path: path.write_text("whole") and None).read_text()


def test_the_cache_is_in_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KOSMOS2_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/kosmos2")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/u")
    assert cache_folder() == Path("/home/u/.cache/kosmos2")
