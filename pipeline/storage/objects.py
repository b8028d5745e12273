"""Objects and the URLs that name them."""

import os
import re
from dataclasses import dataclass
from typing import NamedTuple, Self
from urllib.parse import unquote

from pipeline.errors import StorageUrlError

S3_SCHEMES = ("s3", "s3a", "s3n")
LOCAL_SCHEMES = ("file", "local")

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_CHAINED = re.compile(r"::[^:]*://|^[a-z0-9]+::.*://|^(zip|tar|simplecache|filecache|blockcache)::")
_BUCKET = re.compile(r"[\w.-]+")
_PASSWORD = re.compile(r"[^/]*:[^/]*@")
_SIGNED_QUERY = re.compile(r"[?&][^=&]*(signature|sig|token|secret|password)[^=&]*=", re.I)


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageOptions:
    """How to reach a store. Names only: secrets stay with the environment or the AWS profile."""

    endpoint_url: str | None = None  # None: AWS_ENDPOINT_URL, the profile's, or AWS itself
    profile: str | None = None
    allow_http: bool = False  # for images that a manifest names

    def __post_init__(self) -> None:
        check_endpoint(self.endpoint_url)


def check_endpoint(url: str | None) -> None:
    """Raises StorageUrlError for what is no endpoint of a store, or holds a secret."""
    if url and "@" in url:
        raise StorageUrlError(_NO_SECRETS.format("the endpoint URL"))
    if url and not url.startswith(("http://", "https://")):
        raise StorageUrlError("the endpoint URL must start with http:// or https://")


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """An object as it was when somebody looked."""

    uri: str  # absolute, with its scheme; never percent-encoded
    size_bytes: int
    etag: str  # without quotes; changes whenever the content does


class Fetched(NamedTuple):
    data: bytes
    etag: str


class Location(NamedTuple):
    """A URL taken apart: ("s3", "bucket/a/b"), ("file", "/a/b"), ("gs", "bucket/a/b")."""

    scheme: str
    path: str

    @classmethod
    def of(cls, uri: str) -> Self:
        """Take apart a URI of ours, literally: of a listing, a plan, a row of a dataset.

        >>> Location.of("s3://bucket/100%25::a.jpg").path
        'bucket/100%25::a.jpg'
        """
        scheme, _, path = uri.partition("://")
        return cls(scheme, path)

    @property
    def uri(self) -> str:
        return f"{self.scheme}://{self.path}"

    @property
    def bucket(self) -> str:
        return self.path.partition("/")[0]

    @property
    def key(self) -> str:
        return self.path.partition("/")[2]


def is_text(name: str) -> bool:
    """Return whether UTF-8 can hold a name. The file systems of Unix take any bytes for one, and
    Python keeps those as surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def locate(uri: str) -> Location:
    """Take apart a URL or path as somebody typed it. `Location.of` is for those of our own.

    `file://` URLs are percent-decoded, as browsers write them, unless there is a file of the name
    as it stands. Other names are taken as they are.
    Raises StorageUrlError for a URL that holds a secret, and then does not repeat it.
    """
    if _CHAINED.search(uri):
        raise StorageUrlError("chained URLs (a::b) are not supported: name the objects themselves")
    scheme, separator, path = uri.partition("://")
    if not separator or not _SCHEME.fullmatch(scheme):
        return Location("file", _absolute(os.path.expanduser(uri)))
    scheme = scheme.lower()
    if scheme in LOCAL_SCHEMES:
        literal = _absolute(path.removeprefix("localhost"))
        return Location("file", literal if os.path.lexists(literal) else unquote(literal))
    if scheme in S3_SCHEMES:
        return _locate_s3(path)
    if _PASSWORD.match(path) or _SIGNED_QUERY.search(path):
        raise StorageUrlError(_NO_SECRETS.format(f"the {scheme}:// URL"))
    return Location(scheme, path)


def _absolute(path: str) -> str:
    """Raises StorageUrlError for a path that no file system takes, or one beside nothing."""
    if "\0" in path or not path:
        raise StorageUrlError(f"{path!r} is no path: name a file, a directory or a URL")
    try:
        return os.path.abspath(path)
    except FileNotFoundError:
        raise StorageUrlError(
            f"{path} is relative, and the working directory does not exist any more: change to "
            "one that does, or give an absolute path"
        ) from None


def _locate_s3(path: str) -> Location:
    location = Location("s3", path)
    if "@" in location.bucket or ":" in location.bucket:
        raise StorageUrlError(_NO_SECRETS.format("the s3:// URL"))
    if not _BUCKET.fullmatch(location.bucket):
        raise StorageUrlError("an s3:// URL needs a bucket: s3://bucket/path")
    return location


_NO_SECRETS = (
    "{} seems to hold credentials: take them out, and give them in the environment "
    "(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or in a named profile"
)
