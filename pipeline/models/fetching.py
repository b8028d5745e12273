"""Put a checkpoint into a directory or bucket, where jobs find it without the Hub."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from kosmos2_core.checkpoint.files import CheckpointFiles, is_checkpoint_file
from pipeline.errors import InputMissing, SpecError
from pipeline.models.staging import RECEIPT, objects_in, stage_model
from pipeline.storage import InputStore
from pipeline.storage.objects import Location, locate
from pipeline.storage.opening import put_file

_CONFIG = "config.json"
_RECEIPT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedModel:
    """A checkpoint in its new place. `files` counts what was written; 0 if it was there already."""

    uri: str
    weights_digest: str
    files: int
    size_bytes: int


def fetch_model(name: str, dest: str) -> FetchedModel:
    """Copy the files of a model to `dest`. A fetch that was cut off continues.

    `name` is as in `stage_model`, `dest` a directory or the URL of a folder. Without its
    `config.json`, which is written last, no job uses the folder.

    Raises SpecError if `dest` holds something else, CheckpointError, StorageError.
    """
    at = locate(dest)
    root = at._replace(path=at.path.rstrip("/") + "/")
    there = _names(root)
    files = stage_model(name)
    digest = files.weights_digest()
    if _CONFIG in there:
        _check_same(root, digest)
        return FetchedModel(uri=root.uri, weights_digest=digest, files=0, size_bytes=0)
    with tempfile.TemporaryDirectory() as folder:
        paths = [*_paths(files), _receipt(files, Path(folder))]
        if strangers := sorted(there - {path.name for path in paths}):
            raise SpecError(f"{root.uri} is not empty ({strangers[0]}); name another folder")
        for path in sorted(paths, key=lambda path: path.name == _CONFIG):
            put_file(path, root._replace(path=root.path + path.name))
        size_bytes = sum(path.stat().st_size for path in paths)
    return FetchedModel(
        uri=root.uri, weights_digest=digest, files=len(paths), size_bytes=size_bytes
    )


def _names(root: Location) -> set[str]:
    """Return what is in a folder, by relative path; nothing if there is no folder."""
    try:
        return set(objects_in(root))
    except InputMissing:
        return set()


def _check_same(root: Location, digest: str) -> None:
    """Raise SpecError unless the folder holds a fetched model with these weights."""
    receipt = root._replace(path=root.path + RECEIPT)
    try:
        stored = json.loads(InputStore().read_whole(receipt.uri, max_bytes=_RECEIPT_BYTES))
    except (InputMissing, ValueError):
        stored = {}
    if stored.get("weights_digest") != digest:
        raise SpecError(f"{root.uri} holds another model; name another folder")


def _paths(files: CheckpointFiles) -> list[Path]:
    paths = sorted(files.directory.iterdir())
    return [path for path in paths if is_checkpoint_file(path.name) and path.name != RECEIPT]


def _receipt(files: CheckpointFiles, folder: Path) -> Path:
    path = folder / RECEIPT
    content = {
        "id": files.id,
        "commit": files.commit,
        "weights_digest": files.weights_digest(),
    }
    path.write_text(json.dumps(content, indent=2))
    return path
