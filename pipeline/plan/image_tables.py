"""Tables that lie beside images: each row is the metadata of the image that it names.

So img2dataset writes its files (`00000.parquet` beside `00000/000000001.jpg`), and Hugging Face
its image folders (`metadata.jsonl`). A table that names none of the images is ignored.
"""

import logging
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

import pyarrow as pa

from pipeline.errors import InputUnreadable
from pipeline.formats.limits import MAX_METADATA_BYTES, METADATA_LEFT_OUT
from pipeline.formats.table.cells import json_value
from pipeline.formats.table.columns import KEY_COLUMNS
from pipeline.formats.table.image_names import ImageNames, order_of_column
from pipeline.formats.table.manifest import FIRST_ROWS, MAX_MANIFEST_CHARS, ROW_ERRORS
from pipeline.formats.table.rows import open_table, rows_of
from pipeline.schema import metadata_json
from pipeline.storage import InputStore, ObjectInfo
from pipeline.storage.ignored import Ignored, IgnoredCount
from pipeline.storage.objects import Location

# Links die: of what a table names, this share has to be there.
_LEAST_SHARE = 0.1

_Row = Mapping[str, Any]
_log = logging.getLogger(__name__)


def with_metadata(
    images: pa.Table, tables: Iterable[ObjectInfo], store: InputStore
) -> tuple[pa.Table, tuple[Ignored, ...]]:
    """Fill in the metadata of rows of `schema.LISTING`; also say what of the tables is ignored.

    Of several rows about one image the first counts. Raises InputUnreadable for more metadata than
    can be held.
    """
    uris = images["uri"].to_pylist()
    found = _Metadata(_Images.of(uris))
    for table in tables:
        found.take(table, store)
    if not found.texts:
        return images, found.ignored.result()
    texts = pa.array([found.texts.get(uri) for uri in uris], pa.string())
    place = images.schema.get_field_index("metadata")
    return images.set_column(place, images.schema.field(place), texts), found.ignored.result()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Images:
    """The images of a folder, by all that a table may call them. None stands for several."""

    uris: frozenset[str]
    by_stem: Mapping[str, str | None]  # the URI without its extension
    by_name: Mapping[str, str | None]  # the base name, with and without its extension

    @classmethod
    def of(cls, uris: Iterable[str]) -> "_Images":
        by_stem, by_name = dict[str, str | None](), dict[str, str | None]()
        for uri in uris:
            stem = posixpath.splitext(uri)[0]
            by_stem[stem] = uri if stem not in by_stem else None
            for name in {posixpath.basename(uri), posixpath.basename(stem)}:
                by_name[name] = uri if name not in by_name else None
        return cls(uris=frozenset(uris), by_stem=by_stem, by_name=by_name)


@dataclass(frozen=True, slots=True)
class _Finder:
    """Finds the image that a value of the table at `at` names."""

    images: _Images
    at: Location
    names: ImageNames

    @classmethod
    def of(cls, images: _Images, at: Location) -> "_Finder":
        return cls(images, at, ImageNames(at, images.uris.__contains__))

    def find(self, value: Any) -> str | None:
        """By its path from the table; beneath the folder of the table's own name, as img2dataset
        has it; by a base name that only one image beneath the table's folder has."""
        if isinstance(value, Mapping):  # as `datasets` writes an image that it did not embed
            value = value.get("path")
        elif isinstance(value, list) and len(value) == 1:
            [value] = value
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            return None
        text = str(value)
        uri = self.names.uri_of(text)
        if uri in self.images.uris:
            return uri
        folder = posixpath.dirname(self.at.uri)
        table = posixpath.join(folder, posixpath.basename(self.at.uri).split(".")[0])
        for stem in (posixpath.join(folder, text), posixpath.join(table, text)):
            if (found := self.images.by_stem.get(stem)) is not None:
                return found
        found = self.images.by_name.get(posixpath.basename(text.replace("\\", "/")))
        is_beneath = found is not None and found.startswith(f"{folder}/")
        return found if is_beneath else None


@dataclass(slots=True)
class _Metadata:
    images: _Images
    texts: dict[str, str] = field(default_factory=dict)
    ignored: IgnoredCount = field(default_factory=IgnoredCount)
    _chars: int = 0

    def take(self, table: ObjectInfo, store: InputStore) -> None:
        try:
            with open_table(store, table) as file:
                self._take_rows(rows_of(table.uri)(file), table)
        except (InputUnreadable, *ROW_ERRORS) as error:
            _log.warning("%s lies beside images, and cannot be read: %s", table.uri, error)
            self.ignored.add("unreadable tables", table.uri)

    def _take_rows(self, rows: Iterator[_Row], table: ObjectInfo) -> None:
        finder = _Finder.of(self.images, Location.of(table.uri))
        first = list(islice(rows, FIRST_ROWS))
        column = _column(first, finder)
        if column is None:
            self.ignored.add("tables beside images", table.uri)
            return
        taken = 0
        for number, row in enumerate(chain(first, rows), start=1):
            uri = finder.find(row.get(column))
            if uri is None:
                self.ignored.add("rows of tables without an image", f"{table.uri}#{number}")
            elif uri in self.texts:
                self.ignored.add("more rows about one image", f"{table.uri}#{number}")
            else:
                self.texts[uri] = self._text(row, table)
                taken += 1
        _log.info("%s: metadata of %d images, by its column %s", table.uri, taken, column)

    def _text(self, row: _Row, table: ObjectInfo) -> str:
        text = metadata_json({name: json_value(value) for name, value in row.items()})
        self._chars += len(text)
        if self._chars > MAX_MANIFEST_CHARS:
            raise InputUnreadable(
                f"{table.uri}: more than {MAX_MANIFEST_CHARS >> 30} Gi characters of metadata: "
                "leave it out (--exclude), or split the input"
            )
        return METADATA_LEFT_OUT if len(text) > MAX_METADATA_BYTES else text


def _column(rows: list[_Row], finder: _Finder) -> str | None:
    """The one that names the most images, of those that are called like names of images, then like
    keys, then otherwise: a count may be a name of images, too."""
    columns = dict.fromkeys(name for row in rows for name in row)
    shares = {name: _share(name, rows, finder) for name in columns}
    named = [name for name, share in shares.items() if share >= _LEAST_SHARE]
    return max(named, key=lambda name: (_likeliness(name), shares[name]), default=None)


def _likeliness(column: str) -> int:
    if order_of_column(column) is not None:
        return 2
    return 1 if column in KEY_COLUMNS else 0


def _share(name: str, rows: list[_Row], finder: _Finder) -> float:
    """How many different images the values name, of as many values as there are: labels such as
    "7" may be names of images, but not of many."""
    values = [value for row in rows if (value := row.get(name)) not in (None, "")]
    named = {finder.find(value) for value in values} - {None}
    return len(named) / len(values) if values else 0.0
