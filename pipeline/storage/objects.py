"""Objects and the URLs that name them."""

import os
import re
from dataclasses import dataclass
from typing import NamedTuple, Self, TypeAlias
from urllib.parse import unquote

from pipeline.errors import InputTooLarge, StorageUrlError
from pipeline.storage.clouds.settings import check_settings

S3_SCHEMES = ("s3", "s3a", "s3n")
AZURE_SCHEMES = ("az", "abfs", "abfss")
GOOGLE_SCHEMES = ("gs", "gcs")
LOCAL_SCHEMES = ("file", "local")
WEB_SCHEMES = ("http", "https")
ANONYMOUS = "none, as the option anonymous says"  # source of credentials

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_CHAINED = re.compile(r"::[^:]*://|^[a-z0-9]+::.*://|^(zip|tar|simplecache|filecache|blockcache)::")
_BUCKET = re.compile(r"[\w.-]+")
_CONTAINER = re.compile(r"[\w.$-]+(@[\w.-]+)?")  # of Azure, perhaps with its account
_PASSWORD = re.compile(r"[^/]*:[^/]*@")
_SIGNED_QUERY = re.compile(r"[?&][^=&]*(signature|sig|token|secret|password)[^=&]*=", re.I)


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageOptions:
    """Access to a store.

    It holds only names: secrets stay in the environment or the AWS profile.
    """

    endpoint_url: str | None = None  # None: that of the environment, the profile, or the cloud
    profile: str | None = None  # of AWS
    settings: tuple[str, ...] = ()  # KEY=VALUE
    allow_http: bool = False  # for images that a manifest names

    def __post_init__(self) -> None:
        check_endpoint(self.endpoint_url)
        check_settings(self.settings)

    def setting(self, key: str) -> str | None:
        """Return the value of a setting, None if it is not given."""
        given = dict(text.split("=", 1) for text in self.settings)
        return given.get(key)

    def is_on(self, key: str) -> bool:
        """Return whether a setting is given as "true"."""
        return self.setting(key) == "true"


def check_endpoint(url: str | None) -> None:
    """Raise StorageUrlError for a URL that is not an endpoint, or that holds a secret."""
    if url and "@" in url:
        raise StorageUrlError(_NO_SECRETS.format("the endpoint URL"))
    if url and not url.startswith(("http://", "https://")):
        raise StorageUrlError(
            "the endpoint URL is not valid; it must start with http:// or https://"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """An object as it was when it was listed."""

    uri: str  # absolute, with its scheme; never percent-encoded
    size_bytes: int
    etag: str  # without quotes; changes whenever the content does


class Fetched(NamedTuple):
    data: bytes
    etag: str


Data: TypeAlias = bytes | memoryview


def check_size(uri: str, size_bytes: int, most: int | None) -> None:
    """Raise InputTooLarge for an object of more than `most` bytes; None is no limit."""
    if most is not None and size_bytes > most:
        raise InputTooLarge(f"{uri} has more than {most >> 20} MiB; use a smaller file")


class Location(NamedTuple):
    """The parts of a URL: ("s3", "bucket/a/b"), ("file", "/a/b"), ("gs", "bucket/a/b")."""

    scheme: str
    path: str

    @classmethod
    def of(cls, uri: str) -> Self:
        """Split a URI of a listing, a plan or a row of a dataset, literally.

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
    """Return whether UTF-8 can hold a name.

    Unix file names can be any bytes, and Python keeps invalid ones as surrogates.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def locate(uri: str) -> Location:
    """Split a URL or path that a user typed. `Location.of` is for stored URIs.

    `file://` URLs are percent-decoded, as browsers write them, unless a file has the literal name.
    Other names are used as they are. Raises StorageUrlError for a URL that holds a secret; the
    message does not repeat the URL.
    """
    if _CHAINED.search(uri):
        raise StorageUrlError("chained URLs (a::b) are not supported; name the objects themselves")
    scheme, separator, path = uri.partition("://")
    if not separator or not _SCHEME.fullmatch(scheme):
        return Location("file", _absolute(os.path.expanduser(uri)))
    scheme = scheme.lower()
    if scheme in LOCAL_SCHEMES:
        literal = _absolute(path.removeprefix("localhost"))
        return Location("file", literal if os.path.lexists(literal) else unquote(literal))
    if scheme in S3_SCHEMES:
        return _locate_s3(path)
    if scheme in GOOGLE_SCHEMES:
        scheme = "gs"
    if _PASSWORD.match(path) or _SIGNED_QUERY.search(path):
        raise StorageUrlError(_NO_SECRETS.format(f"the {scheme}:// URL"))
    at = Location(scheme, path)
    if scheme in (*GOOGLE_SCHEMES, *AZURE_SCHEMES) and not _CONTAINER.fullmatch(at.bucket):
        raise StorageUrlError(f"a {scheme}:// URL needs a bucket; write {scheme}://bucket/path")
    return at


def _absolute(path: str) -> str:
    """Return an absolute path.

    Raises StorageUrlError for an invalid path, or a relative one without a working directory.
    """
    if "\0" in path or not path:
        raise StorageUrlError(f"{path!r} is not a path; name a file, a directory or a URL")
    try:
        return os.path.abspath(path)
    except FileNotFoundError:
        raise StorageUrlError(
            f"{path} is relative, but the working directory no longer exists; change to another "
            "directory, or give an absolute path"
        ) from None


def _locate_s3(path: str) -> Location:
    location = Location("s3", path)
    if "@" in location.bucket or ":" in location.bucket:
        raise StorageUrlError(_NO_SECRETS.format("the s3:// URL"))
    if not _BUCKET.fullmatch(location.bucket):
        raise StorageUrlError("an s3:// URL needs a bucket; write s3://bucket/path")
    return location


_NO_SECRETS = (
    "{} seems to hold credentials; remove them, and give them in the environment "
    "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AZURE_STORAGE_SAS_TOKEN, ...) or in a named "
    "profile"
)
