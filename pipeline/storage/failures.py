"""The one place where foreign exceptions become ours."""

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
    "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or the profile), and what they may do"
)
# The place itself is wrong: a file where a folder should be, a name that is too long, ...
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
    """`missing` is raised when the object is not there, `condition` when its ETag is another.

    A builtin exception other than OSError is a bug of ours and passes through; an exception class
    of a library's own comes from its service.
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
    said = re.sub(r"//[^/@\s]+@", "//", str(error))  # credentials in a URL
    if code == "NoSuchBucket":
        return missing(f"{uri}: the bucket does not exist: create it, or correct its name")
    if code == "InvalidObjectState":
        return StorageRefused(f"{uri}: it is archived (S3 Glacier): restore it, then run again")
    if isinstance(error, FileNotFoundError) or status == 404:
        if uri.startswith("file:"):
            return missing(f"{uri}: no such file or folder: check the name")
        return missing(f"{uri}: no such object: check the name and the bucket")
    if status in (409, 412, 416):
        return condition(f"{uri}: changed by somebody else ({said})")
    if isinstance(error, _ACCESS_ERRORS) or status in (401, 403):
        remedy = "check the permissions" if uri.startswith("file:") else _CREDENTIALS_REMEDY
        return StorageRefused(f"{uri}: access refused ({said}): {remedy}")
    if isinstance(error, OSError) and error.errno in _WRONG_PLACE:
        return StorageRefused(f"{uri}: {error.strerror}: name another place")
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return StorageError(f"{uri}: {error.strerror}: make room, then run the same command again")
    if status == 501:
        return OutputUnsupported(f"{uri}: the store cannot do this ({said}): use another store")
    if isinstance(error, ParamValidationError) or _is_final(error, status):
        return StorageRefused(f"{uri}: request refused ({said})")
    if isinstance(error, BotoConnectionError | HTTPClientError):
        return StorageError(f"{uri}: {said}: check the network and the endpoint URL")
    return StorageError(f"{uri}: {type(error).__name__}: {said}")


def _is_final(error: Exception, status: int | None) -> bool:
    if isinstance(error, TimeoutError) or status is None:
        return False
    return 400 <= status < 500 and status not in _BUSY_STATUSES


def _answer(error: Exception) -> tuple[int | None, str | None]:
    """The HTTP status and the S3 error code behind an exception of s3fs, where there are any."""
    for candidate in (error, error.__cause__):
        response = getattr(candidate, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return status, response.get("Error", {}).get("Code")
    return getattr(error, "status", None), None
