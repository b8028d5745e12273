"""Selection of the store of an output, or of a file to write, by its URL."""

import os
import shutil
from pathlib import Path
from uuid import uuid4

from pipeline.errors import OutputUnsupported
from pipeline.storage.failures import our_errors
from pipeline.storage.local_store import LocalStore
from pipeline.storage.objects import Location, StorageOptions, locate
from pipeline.storage.outputs import TEMPORARY, OutputStore
from pipeline.storage.s3 import S3
from pipeline.storage.s3_store import S3Store
from pipeline.storage.sources import FsspecSource


def open_output(uri: str, options: StorageOptions | None = None) -> OutputStore:
    """Open an output, without a request.

    Raises OutputUnsupported for other schemes, StorageUrlError.
    """
    at = locate(uri)
    root = at._replace(path=at.path.rstrip("/"))
    match at.scheme:
        case "file":
            return LocalStore(root)
        case "s3":
            return S3Store(root, S3(options or StorageOptions()))
        case _:
            raise OutputUnsupported(
                f"{at.scheme}:// does not support conditional writes; write to a local directory "
                "or to s3://, and copy the finished output"
            )


def put_file(path: Path, to: Location) -> None:
    """Copy a file of this machine. It appears whole, in place of an earlier one.

    Raises StorageError, StorageUrlError.
    """
    match to.scheme:
        case "file":
            _copy(path, Path(to.path))
        case "s3":
            S3(StorageOptions()).put_file(path, to)
        case _:
            FsspecSource().put_file(path, to)


def _copy(path: Path, to: Path) -> None:
    temporary = to.with_name(f".{to.name}.{uuid4().hex}{TEMPORARY}")
    with our_errors(to.as_uri()):
        to.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(path, temporary)
            os.replace(temporary, to)
        finally:
            temporary.unlink(missing_ok=True)
