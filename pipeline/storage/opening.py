"""Selection of the store of an output, or of a file to write, by its URL."""

import os
import shutil
from pathlib import Path
from uuid import uuid4

from pipeline.errors import OutputUnsupported
from pipeline.storage.bucket_store import BucketStore
from pipeline.storage.clouds.choosing import bucket_client, check_options
from pipeline.storage.failures import our_errors
from pipeline.storage.local_store import LocalStore
from pipeline.storage.objects import Location, StorageOptions, locate
from pipeline.storage.outputs import TEMPORARY, OutputStore
from pipeline.storage.sources import FsspecSource


def open_output(uri: str, options: StorageOptions | None = None) -> OutputStore:
    """Open an output, without a request.

    Raises OutputUnsupported for other schemes, StorageUrlError.
    """
    at = locate(uri)
    check_options(at, options or StorageOptions())
    root = at._replace(path=at.path.rstrip("/"))
    if at.scheme == "file":
        return LocalStore(root)
    client = bucket_client(at, options or StorageOptions())
    if client is None:
        raise OutputUnsupported(
            f"{at.scheme}:// does not support conditional writes; write to a local directory, to "
            "s3://, gs:// or az://, and copy the finished output"
        )
    return BucketStore(root, client)


def put_file(path: Path, to: Location) -> None:
    """Copy a file of this machine. It appears whole, in place of an earlier one.

    Raises StorageError, StorageUrlError.
    """
    if to.scheme == "file":
        _copy(path, Path(to.path))
    elif (client := bucket_client(to, StorageOptions())) is not None:
        client.put_file(path, to)
    else:
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
