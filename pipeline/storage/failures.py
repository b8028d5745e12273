"""The translation of foreign exceptions into those of the pipeline."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.exceptions import (
    HTTPClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)

from pipeline.errors import (
    Conflict,
    ObjectMissing,
    OutputUnsupported,
    PipelineError,
    StorageError,
    StorageRefused,
)
from pipeline.storage.objects import AZURE_SCHEMES

_ACCESS_ERRORS = (
    PermissionError,
    *(NoCredentialsError, PartialCredentialsError, ProfileNotFound),
    *(SSOError, TokenRetrievalError),
)
_REMEDIES = {
    "file": "check the permissions",
    "s3": "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or the profile), and their "
    "permissions",
    "gs": "check GOOGLE_APPLICATION_CREDENTIALS (or the machine's service account), and its roles",
    **dict.fromkeys(
        AZURE_SCHEMES,
        "check AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN (or the identity and its "
        "roles), and the name of the account",
    ),
}
# The place itself is wrong: a file instead of a folder, a name that is too long, ...
_WRONG_PLACE = frozenset(
    {
        *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP),
        *(errno.ENAMETOOLONG, errno.EROFS, errno.ENOTEMPTY, errno.EXDEV),
    }
)
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_BUSY_STATUSES = frozenset({408, 425, 429})
_NO_BUCKET = frozenset({"NoSuchBucket", "ContainerNotFound"})
# obstore has only texts, which end with a dump of all it knows, such as the signature in a URL.
_OBSTORE_STATUS = re.compile(r"non-2xx status code: (\d{3})")
_OBSTORE_CODE = re.compile(r"<Code>(\w+)</Code>")
_OBSTORE_MESSAGE = re.compile(r"<Message>([^<\n]+)")
_OBSTORE_CREDENTIALS = re.compile(r"token|credential|metadata/identity|access key", re.I)
_OBSTORE_NETWORK = re.compile(r"HTTP error: (.+)")


@contextmanager
def our_errors(
    uri: str,
    *,
    missing: type[ObjectMissing] = ObjectMissing,
    condition: type[PipelineError] = Conflict,
) -> Iterator[None]:
    """Translate errors: `missing` for an absent object, `condition` for another ETag.

    A builtin exception other than OSError is a bug and passes through. A library's own exception
    class comes from its service.
    """
    try:
        yield
    except PipelineError:
        raise
    except Exception as error:
        if not isinstance(error, OSError) and type(error).__module__ == "builtins":
            raise
        shown = None if _is_of_obstore(error) else error  # it may show a signature
        raise _translate(error, uri, missing, condition) from shown


def _translate(
    error: Exception,
    uri: str,
    missing: type[ObjectMissing],
    condition: type[PipelineError],
) -> PipelineError:
    status, code = _answer(error)
    said = _said(error)
    scheme = uri.partition(":")[0]
    if code in _NO_BUCKET:
        return missing(f"{uri}: the bucket does not exist; create it, or correct its name")
    if code == "InvalidObjectState":
        return StorageRefused(
            f"{uri}: it is archived (S3 Glacier); restore it, then run the same command again"
        )
    if isinstance(error, FileNotFoundError) or status == 404:
        if scheme == "file":
            return missing(f"{uri}: no such file or folder; check the name")
        return missing(f"{uri}: no such object; check the name and the bucket")
    if status in (409, 412, 416):
        is_output = condition is Conflict
        remedy = "run the same command again" if is_output else "restore it, or plan a new output"
        return condition(f"{uri}: changed by another writer ({said}); {remedy}")
    if isinstance(error, _ACCESS_ERRORS) or status in (401, 403) or _lacks_credentials(error):
        remedy = _REMEDIES.get(scheme, "check the credentials and their permissions")
        return StorageRefused(f"{uri}: access refused ({said}); {remedy}")
    if isinstance(error, OSError) and error.errno in _WRONG_PLACE:
        return StorageRefused(f"{uri}: {error.strerror}; choose another place")
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return StorageError(f"{uri}: {error.strerror}; free space, then run the same command again")
    if status == 501:
        return OutputUnsupported(
            f"{uri}: the store does not support this request ({said}); use another store"
        )
    if type(error).__name__ == "InvalidPathError":
        return StorageRefused(
            f"{uri}: holds a name that cannot be used in this store ({said}); rename it, or name a "
            "folder without it"
        )
    if isinstance(error, ParamValidationError) or _is_final(error, status):
        return StorageRefused(
            f"{uri}: the store refused the request ({said}); check the URL and the store"
        )
    if isinstance(error, BotoConnectionError | HTTPClientError) or _OBSTORE_NETWORK.search(said):
        return StorageError(f"{uri}: {said}; check the network and the endpoint URL")
    return StorageError(f"{uri}: {type(error).__name__}: {said}; run the same command again")


def _is_final(error: Exception, status: int | None) -> bool:
    if isinstance(error, TimeoutError) or status is None:
        return False
    return 400 <= status < 500 and status not in _BUSY_STATUSES


def _said(error: Exception) -> str:
    """Return what an error says, without credentials of a URL and without obstore's dump."""
    said = str(error)
    if _is_of_obstore(error):
        message = _OBSTORE_MESSAGE.search(said) or _OBSTORE_NETWORK.search(said)
        said = message[0 if message.re is _OBSTORE_NETWORK else 1] if message else said
        said = re.sub(r"\?\S+", "", said.partition("\n")[0])
    return re.sub(r"//[^/@\s]+@", "//", said)


def _is_of_obstore(error: Exception) -> bool:
    return type(error).__module__.startswith("obstore") or "Debug source" in str(error)


def _lacks_credentials(error: Exception) -> bool:
    """Return whether obstore failed before the request that it was asked for."""
    said = str(error).partition("\n")[0]
    return _is_of_obstore(error) and bool(_OBSTORE_CREDENTIALS.search(said))


def _answer(error: Exception) -> tuple[int | None, str | None]:
    """Return the HTTP status and the error code behind an exception of s3fs or obstore, if any."""
    if _is_of_obstore(error):
        said = str(error)
        status, code = _OBSTORE_STATUS.search(said), _OBSTORE_CODE.search(said)
        return (int(status[1]) if status else None), (code[1] if code else None)
    for candidate in (error, error.__cause__):
        response = getattr(candidate, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return status, response.get("Error", {}).get("Code")
    return getattr(error, "status", None), None
