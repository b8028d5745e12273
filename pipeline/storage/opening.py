"""Selection of the store of an output by its URL."""

from pipeline.errors import OutputUnsupported
from pipeline.storage.local_store import LocalStore
from pipeline.storage.objects import StorageOptions, locate
from pipeline.storage.outputs import OutputStore
from pipeline.storage.s3 import S3
from pipeline.storage.s3_store import S3Store


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
