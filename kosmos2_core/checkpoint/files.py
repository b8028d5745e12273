"""Find the files of a checkpoint: a hub id, a directory, or `shapes`, the embedded default."""

import hashlib
import json
import time
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from kosmos2_core.errors import CheckpointError, first_line

SHAPES = "shapes"
SHAPES_DIRECTORY = Path(__file__).parents[1] / "shapes" / "checkpoint"

_FILES = ["*.json", "*.safetensors", "*.model"]
_INDEX = "model.safetensors.index.json"  # of weights in several files
BUSY_STATUSES = (429, 500, 502, 503, 504)  # of the hub, which a later request may not meet
_PAUSES_S = (1, 2, 4, 8, 16, 32)  # between attempts


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFiles:
    """The files of a checkpoint.

    `commit` is the hub's commit hash, None for other sources. `digest` is what `weights_digest`
    returns, where it is known.
    """

    id: str
    directory: Path
    commit: str | None = None
    digest: str | None = None

    def error(self, reason: object) -> CheckpointError:
        """Make an error that names the checkpoint. `reason` says what is wrong and what to do."""
        return CheckpointError(f"checkpoint {self.id}: {reason}")

    @property
    def weights(self) -> list[Path]:
        return sorted(self.directory.glob("*.safetensors"))

    def weights_digest(self) -> str:
        """Return the sha256 (hex) over the names and contents of the safetensors files."""
        if self.digest is not None:
            return self.digest
        digest = hashlib.sha256()
        for path in self.weights:
            digest.update(path.name.encode() + b"\0")
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    def json(self, name: str) -> dict[str, Any]:
        """Read a JSON file, {} if there is none. Classes of transformers drop unknown keys.

        Raises CheckpointError if it is not a JSON object.
        """
        path = self.directory / name
        if not path.exists():
            return {}
        try:
            content = json.loads(path.read_bytes())
        except ValueError as error:
            raise self.error(f"{name} is damaged ({error}); fetch the checkpoint again") from error
        if not isinstance(content, dict):
            raise self.error(f"{name} is not a JSON object; fetch the checkpoint again")
        return content


def locate_checkpoint(name: str) -> CheckpointFiles:
    """Find the files of `shapes`, a directory or a hub id (`owner/name` or `owner/name@revision`).

    A hub id is resolved to a commit and downloaded once into the hub's own cache.
    Raises CheckpointError if nothing has that name or the files cannot be used.
    """
    if name == SHAPES:
        files = CheckpointFiles(id=SHAPES, directory=SHAPES_DIRECTORY)
    elif Path(name).is_dir():
        files = CheckpointFiles(id=name, directory=Path(name))
    elif is_hub_id(name):
        files = _download(name)
    else:
        raise CheckpointError(
            f"no checkpoint at {name!r}: give a directory, a hub id such as "
            f"microsoft/kosmos-2-patch14-224, or {SHAPES!r}"
        )
    check_files(files)
    return files


def is_hub_id(name: str) -> bool:
    """Return whether a name is `owner/name` or `owner/name@revision`, and no directory."""
    is_path = name.startswith((".", "/", "~")) or Path(name).is_dir()
    return not is_path and name.partition("@")[0].count("/") == 1


def is_checkpoint_file(name: str) -> bool:
    """Return whether a checkpoint can use the file: it holds data only, no Python, no pickles."""
    return any(fnmatchcase(name, pattern) for pattern in _FILES)


def cached_snapshot(name: str) -> Path | None:
    """Return the folder of a hub id in the hub's cache on this machine, without a request.

    None if it is not there, or not all of it.
    """
    repository, _, revision = name.partition("@")
    try:
        folder = snapshot_download(
            repository, revision=revision or None, allow_patterns=_FILES, local_files_only=True
        )
    except (HFValidationError, LocalEntryNotFoundError):
        return None
    return Path(folder) if (Path(folder) / "config.json").is_file() else None


def _download(name: str) -> CheckpointFiles:
    repository, _, revision = name.partition("@")
    try:
        directory = Path(_snapshot(repository, revision or None))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(
            f"cannot get {name} from the hub: {first_line(error)}. Check the name and the "
            "network, log in if the repository is gated, or give a directory with its files"
        ) from error
    return CheckpointFiles(id=repository, directory=directory, commit=directory.name)


def _snapshot(repository: str, revision: str | None) -> str:
    """Download a snapshot; wait longer and longer while the hub is busy or throttles us."""
    pauses = iter(_PAUSES_S)
    while True:
        try:
            return snapshot_download(repository, revision=revision, allow_patterns=_FILES)
        except (HfHubHTTPError, LocalEntryNotFoundError) as error:
            pause_s = next(pauses, None) if _is_busy(error) else None
            if pause_s is None:
                raise
            time.sleep(pause_s)


def _is_busy(error: Exception) -> bool:
    """Return whether the hub asked to wait. Its client wraps that answer if nothing is cached."""
    answer = error if isinstance(error, HfHubHTTPError) else error.__cause__
    return isinstance(answer, HfHubHTTPError) and answer.response.status_code in BUSY_STATUSES


def check_files(files: CheckpointFiles) -> None:
    """Raise CheckpointError unless these are all files of a Kosmos-2 checkpoint."""
    config = files.json("config.json")
    if not config:
        raise files.error(
            f"no config.json in {files.directory}; give a directory with all its files"
        )
    if config.get("model_type") != "kosmos-2":
        raise CheckpointError(
            f"checkpoint {files.id} is a {config.get('model_type')!r} model, not 'kosmos-2'; "
            "use microsoft/kosmos-2-patch14-224 or one fine-tuned from it"
        )
    if not files.weights:
        raise files.error(
            f"no *.safetensors in {files.directory}. Other formats are not loaded, because they "
            "can run code; save it with safetensors first"
        )
    parts = set(files.json(_INDEX).get("weight_map", {}).values())
    if missing := sorted(parts - {path.name for path in files.weights}):
        raise files.error(
            f"{missing[0]} is missing, which {_INDEX} names; fetch the checkpoint again"
        )
