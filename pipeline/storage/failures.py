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

_ACCESS_ERRORS = (
    PermissionError,
    *(NoCredentialsError, PartialCredentialsError, ProfileNotFound),
    *(SSOError, TokenRetrievalError),
)
_CREDENTIALS_REMEDY = (
    "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or the profile), and their permissions"
)
# The place itself is wrong: a file instead of a folder, a name that is too long, ...
_WRONG_PLACE = frozenset(
    {
        *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP),
        *(errno.ENAMETOOLONG, errno.EROFS, errno.ENOTEMPTY, errno.EXDEV),
    }
)
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_BUSY_STATUSES = frozenset({408, 425, 429})


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
        raise _translate(error, uri, missing, condition) from error


def _translate(
    error: Exception,
    uri: str,
    missing: type[ObjectMissing],
    condition: type[PipelineError],
) -> PipelineError:
    status, code = _answer(error)
    said = re.sub(r"//[^/@\s]+@", "//", str(error))  # removes credentials from a URL
    if code == "NoSuchBucket":
        return missing(f"{uri}: the bucket does not exist; create it, or correct its name")
    if code == "InvalidObjectState":
        return StorageRefused(
            f"{uri}: it is archived (S3 Glacier); restore it, then run the same command again"
        )
    if isinstance(error, FileNotFoundError) or status == 404:
        if uri.startswith("file:"):
            return missing(f"{uri}: no such file or folder; check the name")
        return missing(f"{uri}: no such object; check the name and the bucket")
    if status in (409, 412, 416):
        is_output = condition is Conflict
        remedy = "run the same command again" if is_output else "restore it, or plan a new output"
        return condition(f"{uri}: changed by another writer ({said}); {remedy}")
    if isinstance(error, _ACCESS_ERRORS) or status in (401, 403):
        remedy = "check the permissions" if uri.startswith("file:") else _CREDENTIALS_REMEDY
        return StorageRefused(f"{uri}: access refused ({said}); {remedy}")
    if isinstance(error, OSError) and error.errno in _WRONG_PLACE:
        return StorageRefused(f"{uri}: {error.strerror}; choose another place")
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return StorageError(f"{uri}: {error.strerror}; free space, then run the same command again")
    if status == 501:
        return OutputUnsupported(
            f"{uri}: the store does not support this request ({said}); use another store"
        )
    if isinstance(error, ParamValidationError) or _is_final(error, status):
        return StorageRefused(
            f"{uri}: the store refused the request ({said}); check the URL and the store"
        )
    if isinstance(error, BotoConnectionError | HTTPClientError):
        return StorageError(f"{uri}: {said}; check the network and the endpoint URL")
    return StorageError(f"{uri}: {type(error).__name__}: {said}; run the same command again")


def _is_final(error: Exception, status: int | None) -> bool:
    if isinstance(error, TimeoutError) or status is None:
        return False
    return 400 <= status < 500 and status not in _BUSY_STATUSES


def _answer(error: Exception) -> tuple[int | None, str | None]:
    """Return the HTTP status and the S3 error code behind an exception of s3fs, if any."""
    for candidate in (error, error.__cause__):
        response = getattr(candidate, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return status, response.get("Error", {}).get("Code")
    return getattr(error, "status", None), None
