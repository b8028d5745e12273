"""Names of images in manifests: which values are names, and which objects they mean."""

import posixpath
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urljoin

from kosmos2_core.images.formats import is_image_name
from pipeline.errors import StorageUrlError
from pipeline.formats.limits import MAX_NAME_CHARS
from pipeline.storage.objects import LOCAL_SCHEMES, WEB_SCHEMES, Location, is_text, locate

FILE_NAME_COLUMN = "file_name"
"""The column of a table that has only names of images, and no column names."""

# Without "_", "-", spaces and capitals. If the values do not decide, the first one is chosen.
_COLUMNS = (
    *("filename", "imagefilename", "imagepath", "imgpath", "imagefile", "filepath"),
    *("imageuri", "imageurl", "imgurl", "image", "img", "picture", "photo", "uri", "url"),
    *("cocourl", "path", "relativepath", "file", "images"),
)
_LAST = len(_COLUMNS)

# Marks for names that lead nowhere, in a list of images: `REASON://` and the name, or nothing after
# it if the name may hold a secret.
WITHHELD, WINDOWS, OUTSIDE = "withheld", "windows", "outside"
_REFUSED = {
    WITHHELD: "its URL is not valid, or holds credentials; correct it in the manifest",
    WINDOWS: "{} is a path of a Windows machine; make it relative to the manifest",
    OUTSIDE: "{} leads out of the bucket of the manifest; name the object by its URL",
}

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.S)
_FILE_URL = re.compile(r"file:(/(?!/).*)", re.S)  # as Java writes them
_WINDOWS = re.compile(r"(file:/*)?[A-Za-z]:[\\/]|\\\\", re.I)
# A relative name that needs no resolving or correction.
_PLAIN = re.compile(r"(?:\w[\w.-]*/)*\w[\w.-]*", re.ASCII)
_TRIES = 4
# The part of a path that must stay: the bucket, or its equivalent.
_NO_BUCKET = frozenset({"file", "memory"})
_HUB = "hf"

Exists = Callable[[str], bool]
"""Return whether an object exists; nothing on the web is requested."""


def order_of_column(name: str) -> int | None:
    """Return the rank of a name among known names of image columns; None for any other name."""
    plain = re.sub(r"[\s_-]", "", name).lower()
    if plain in _COLUMNS:
        return _COLUMNS.index(plain)
    return _LAST if plain.endswith("filename") else None


def is_known_column(name: str) -> bool:
    return order_of_column(name) is not None


def name_in(value: Any) -> Any:
    """Return a value, or the path in it: so `datasets` writes an image that it does not embed."""
    return value.get("path") if isinstance(value, Mapping) else value


def looks_like_image(text: str) -> bool:
    """Return whether a text is a URL, or has the extension of an image."""
    return is_url(text) or is_image_name(text.strip())


def is_url(text: str) -> bool:
    return _URL.match(text.strip()) is not None


def is_from_web(text: str) -> bool:
    found = _URL.match(text.strip())
    return found is not None and found[1].lower() in WEB_SCHEMES


def refusal(uri: str) -> str | None:
    """Return why a name leads to no image; None if it must be looked up."""
    scheme, _, name = uri.partition("://")
    said = _REFUSED.get(scheme)
    return None if said is None else said.format(f"{name:.500}")


@dataclass(slots=True)
class ImageNames:
    """The names in the manifest at `at`, as URIs.

    Relative names are resolved beside the manifest. A name that seems to come from Windows, or has
    spaces around it, is used as written if such an object exists, and corrected otherwise. The
    first names of that kind decide for all.
    """

    at: Location
    exists: Exists
    _is_as_written: bool | None = field(default=None, init=False)
    _tries: int = field(default=0, init=False)
    _folder: str = field(init=False)

    def __post_init__(self) -> None:
        folder = posixpath.dirname(self.at.path)
        self._folder = f"{folder.rstrip('/')}/" if folder else ""

    def uri_of(self, name: Any) -> str | None:
        """Return the URI; None if it is not a name.

        `refusal` knows the URI of a name that leads nowhere.
        """
        if not isinstance(name, str) or not name.strip():
            return None
        name = name.strip("\r\n")
        if len(name) > MAX_NAME_CHARS:
            return self._beside(name[: MAX_NAME_CHARS + 1])
        # by far the most frequent case
        if _PLAIN.fullmatch(name) and self.at.scheme not in WEB_SCHEMES:
            return f"{self.at.scheme}://{self._folder}{name}"
        if _WINDOWS.match(name.strip()):
            return f"{WINDOWS}://{name.strip()}"
        if "\0" in name or not is_text(name):
            return f"{WITHHELD}://"
        if found := _FILE_URL.fullmatch(name.strip()):
            return self._file(found[1])
        if found := _URL.fullmatch(name.strip()):
            scheme, path = found[1].lower(), found[2]
            is_local = scheme in LOCAL_SCHEMES
            return self._file(path.removeprefix("localhost")) if is_local else _url(scheme, path)
        return self._relative(name)

    def _relative(self, name: str) -> str:
        mended = name.strip().replace("\\", "/")
        if mended == name or self.at.scheme in WEB_SCHEMES:
            return self._beside(mended)
        written = self._beside(name)
        if self._is_as_written is None and self._tries < _TRIES:
            self._tries += 1
            if self.exists(written):
                self._is_as_written = True
            elif self.exists(self._beside(mended)):
                self._is_as_written = False
        return written if self._is_as_written else self._beside(mended)

    def _beside(self, name: str) -> str:
        scheme = self.at.scheme
        if scheme in WEB_SCHEMES:
            return _url(*urljoin(self.at.uri, name).split("://", 1))
        if scheme == "file":
            return Location("file", _local(posixpath.join(self._folder, name))).uri
        folder = self._folder.split("/")[:-1]
        root = min(len(folder), _root_segments(self.at))
        kept = folder[:root] if name.startswith("/") else folder
        for segment in name.removeprefix("/").split("/"):
            if segment == "..":
                if len(kept) <= root:
                    return f"{OUTSIDE}://{name}"
                kept = kept[:-1]
            elif segment != ".":
                kept = [*kept, segment]
        return Location(scheme, "/".join(kept)).uri

    def _file(self, path: str) -> str:
        """Return the URI of a local path, percent-decoded unless a file has exactly that name."""
        written = Location("file", _local(path)).uri
        if "%" not in written or (self.at.scheme == "file" and self.exists(written)):
            return written
        return Location("file", _local(unquote(path))).uri


def _root_segments(at: Location) -> int:
    if at.scheme == _HUB:  # datasets/USER/NAME, or USER/NAME of a model
        return 3 if at.bucket in ("datasets", "spaces") else 2
    return 0 if at.scheme in _NO_BUCKET else 1


def _url(scheme: str, path: str) -> str:
    try:
        return locate(f"{scheme}://{path}").uri
    except StorageUrlError:
        return f"{WITHHELD}://"


def _local(path: str) -> str:
    return posixpath.normpath(posixpath.join("/", path))
