"""A model put into a bucket or directory."""

import json
from pathlib import Path

import pytest

from kosmos2_core.checkpoint.files import SHAPES_DIRECTORY, locate_checkpoint
from kosmos2_core.checkpoint.load import load_checkpoint
from pipeline.errors import SpecError, StorageError
from pipeline.models import fetching
from pipeline.models.fetching import fetch_model
from pipeline.models.staging import RECEIPT, stage_model
from pipeline.storage import InputStore, s3

DIGEST = locate_checkpoint("shapes").weights_digest()
FILES = {path.name for path in SHAPES_DIRECTORY.iterdir()} - {"README.md"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOSMOS2_CACHE", str(tmp_path / "cache"))


@pytest.fixture(params=["directory", "s3", "memory"])
def dest(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder that does not exist yet."""
    if request.param == "directory":
        return str(tmp_path / "models" / "shapes")
    if request.param == "s3":
        s3._file_system.cache_clear()
        return f"s3://{request.getfixturevalue('s3_bucket')}/models/shapes"
    return f"memory://{tmp_path.name}/shapes"


def content(dest: str) -> dict[str, bytes]:
    store = InputStore()
    root = f"{dest}/"
    return {
        each.uri.rpartition("/")[2]: store.read_whole(each.uri, max_bytes=1 << 30)
        for each in store.list(root).objects
    }


def test_a_fetched_model_is_the_same_model(dest: str) -> None:
    fetched = fetch_model("shapes", dest)
    assert (fetched.weights_digest, fetched.files) == (DIGEST, len(FILES) + 1)
    found = content(dest)
    assert fetched.size_bytes == sum(map(len, found.values()))
    receipt = json.loads(found.pop(RECEIPT))
    assert receipt == {"id": "shapes", "commit": None, "weights_digest": DIGEST}
    assert found == {name: (SHAPES_DIRECTORY / name).read_bytes() for name in FILES}
    staged = stage_model(dest)
    assert staged.digest == DIGEST
    assert load_checkpoint(staged, device="cpu").provenance.weights_digest == DIGEST


def test_a_model_that_is_there_is_left_alone(dest: str) -> None:
    fetch_model("shapes", dest)
    before = content(dest)
    assert fetch_model("shapes", dest).files == 0
    assert content(dest) == before


def test_a_fetch_that_was_cut_off_is_no_model_and_continues(
    dest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_file = fetching.put_file

    def cut_off(path: Path, to: object) -> None:
        if path.name == "tokenizer.json":
            raise StorageError("the network went away")
        put_file(path, to)

    monkeypatch.setattr(fetching, "put_file", cut_off)
    with pytest.raises(StorageError, match="went away"):
        fetch_model("shapes", dest)
    assert "config.json" not in content(dest)
    monkeypatch.undo()
    assert fetch_model("shapes", dest).files == len(FILES) + 1
    assert stage_model(dest).digest == DIGEST


def test_other_things_are_not_mixed_with_a_model(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SpecError, match=r"is not empty \(.*notes.txt\); name another folder"):
        fetch_model("shapes", str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(SpecError, match="holds another model; name another folder"):
        fetch_model("shapes", str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", "config.json", "cache"}
