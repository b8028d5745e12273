"""Bring the model that a job names to this node."""

import hashlib
import json
import logging
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from uuid import uuid4

from kosmos2_core.checkpoint.files import (
    CheckpointFiles,
    check_files,
    is_checkpoint_file,
    is_hub_id,
    locate_checkpoint,
)
from kosmos2_core.errors import CheckpointError
from pipeline.concurrency import in_order
from pipeline.errors import PipelineError, StorageError
from pipeline.models.cache import cache_folder, made_once, node_lock
from pipeline.storage import InputStore, ObjectInfo
from pipeline.storage.inputs import BLOCK_BYTES
from pipeline.storage.objects import LOCAL_SCHEMES, Location, locate

RECEIPT = "kosmos2-model.json"
"""File that `model fetch` writes beside the others: the digest of the weights, and their source."""

_HUB_SCHEME = "hf://"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REQUESTS = 8  # in flight, of one file

_log = logging.getLogger(__name__)


def stage_model(name: str) -> CheckpointFiles:
    """Return the files of a model on this node, with their digest.

    All processes of the node share one copy; one of them fetches it while the others wait.

    Args:
        name: Hub id (`owner/name` or `owner/name@revision`, with or without `hf://`), directory,
            URL of a folder (`s3://`, `gs://`, or any that fsspec reads), or `shapes`. Credentials
            come from the environment.

    Returns:
        The files. Their id is `name`, for the Hub without the revision.

    Raises:
        CheckpointError: There is no such model, it cannot be reached, or it cannot be used.
    """
    name = name.removeprefix(_HUB_SCHEME)
    try:
        files = _staged(name)
        return replace(files, digest=_digest_once(files))
    except PipelineError as error:
        raise CheckpointError(f"cannot get the model {name}: {error}") from error
    except OSError as error:
        raise CheckpointError(
            f"cannot keep the model {name} on this node ({error}); free space there, or set "
            "KOSMOS2_CACHE to another folder"
        ) from error


def _staged(name: str) -> CheckpointFiles:
    if is_hub_id(name):
        return _from_hub(name)
    if _URL.match(name) is None:
        return locate_checkpoint(name)
    at = locate(name)
    return locate_checkpoint(at.path) if at.scheme in LOCAL_SCHEMES else _from_folder(name, at)


# The Hub: its client has a cache of its own. A commit that was fetched is not asked for again.


def _from_hub(name: str) -> CheckpointFiles:
    repository, _, revision = name.partition("@")
    folder = cache_folder() / "hub" / repository.replace("/", "--")
    if _COMMIT.fullmatch(revision) and (files := _fetched(repository, revision, folder)):
        return files
    with node_lock(folder):
        files = locate_checkpoint(name)
    if files.commit is not None:
        made_once(folder / files.commit, lambda path: _write(path, str(files.directory)))
    return files


def _fetched(repository: str, commit: str, folder: Path) -> CheckpointFiles | None:
    try:
        directory = Path((folder / commit).read_text())
    except FileNotFoundError:
        return None
    files = CheckpointFiles(id=repository, directory=directory, commit=commit)
    return files if files.weights else None  # the Hub's cache can be cleared


# A folder on a store: its copy has the name of its objects, so a changed model is another copy.


def _from_folder(name: str, at: Location) -> CheckpointFiles:
    folder = cache_folder() / "models"
    last = folder / f"{_hash(at.uri)}.last"
    try:
        found = objects_in(at)
    except StorageError as error:
        if not last.exists():
            raise
        _log.warning("%s; using the copy of %s on this node", error, at.uri)
        copy = folder / last.read_text()
    else:
        objects = [o for path, o in found.items() if "/" not in path and is_checkpoint_file(path)]
        copy = folder / _hash(*(f"{each.uri} {each.size_bytes} {each.etag}" for each in objects))
        made_once(copy, partial(_fetch, name, objects))
        _remember(last, copy.name)
    return CheckpointFiles(id=name, directory=copy)


def objects_in(at: Location) -> dict[str, ObjectInfo]:
    """List the objects in and below a folder, by their relative path.

    Raises InputMissing if there are none, StorageError.
    """
    root = at.path.strip("/") + "/"  # some file systems give their paths a slash in front
    found = InputStore().list(at._replace(path=at.path.rstrip("/") + "/").uri).objects
    return {Location.of(o.uri).path.lstrip("/").removeprefix(root): o for o in found}


def _fetch(name: str, objects: Sequence[ObjectInfo], folder: Path) -> None:
    size_bytes = sum(each.size_bytes for each in objects)
    _log.info("fetching the model %s, %.1f MB in %d files", name, size_bytes / 1e6, len(objects))
    folder.mkdir()
    for each in objects:
        _fetch_file(each, folder / each.uri.rpartition("/")[2])
    files = CheckpointFiles(id=name, directory=folder)
    check_files(files)
    receipt = files.json(RECEIPT)
    if receipt and receipt.get("weights_digest") != _digest_once(files):
        raise files.error(
            f"its weights are not those that {RECEIPT} names; run `kosmos2 model fetch` again, "
            "into an empty folder"
        )


def _fetch_file(info: ObjectInfo, path: Path) -> None:
    """Fetch an object in ranges. Each must be of the listed object."""
    store = InputStore()
    ranges = (
        partial(
            store.read_range,
            *(info.uri, offset, min(BLOCK_BYTES, info.size_bytes - offset), info.etag),
        )
        for offset in range(0, info.size_bytes, BLOCK_BYTES)
    )
    with ThreadPoolExecutor(_REQUESTS) as pool, path.open("xb") as file:
        for data in in_order(pool, ranges, ahead=_REQUESTS):
            file.write(data)
        file.flush()
        os.fsync(file.fileno())


# The digest: read from the weights once per node


def _digest_once(files: CheckpointFiles) -> str:
    stats = [(path.name, path.stat()) for path in files.weights]
    key = _hash(*(f"{n} {s.st_dev} {s.st_ino} {s.st_size} {s.st_mtime_ns}" for n, s in stats))
    known = cache_folder() / "digests" / key
    try:
        made_once(known, lambda path: _write(path, files.weights_digest()))
    except OSError:
        return files.weights_digest()  # this user has no cache
    return known.read_text()


def _remember(path: Path, text: str) -> None:
    """Write a text where it is another one. At no moment is there none."""
    if not path.exists() or path.read_text() != text:
        temporary = path.with_name(f".{path.name}.{uuid4().hex}")
        _write(temporary, text)
        temporary.replace(path)


def _write(path: Path, text: str) -> None:
    path.write_text(text)


def _hash(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
