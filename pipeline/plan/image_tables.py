"""Tables beside images: each row holds the metadata of the image that it names.

img2dataset writes such files (`00000.parquet` beside `00000/000000001.jpg`), and so do Hugging Face
image folders (`metadata.jsonl`). A table that names none of the images is ignored.
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
from pipeline.formats.table.cells import json_value, key_text
from pipeline.formats.table.columns import KEY_COLUMNS
from pipeline.formats.table.image_names import ImageNames, name_in, order_of_column
from pipeline.formats.table.manifest import FIRST_ROWS, MAX_MANIFEST_CHARS, ROW_ERRORS
from pipeline.formats.table.rows import open_table, rows_of
from pipeline.schema import metadata_json
from pipeline.storage import InputStore, ObjectInfo
from pipeline.storage.ignored import Ignored, IgnoredCount
from pipeline.storage.objects import Location

# Links go dead: this share of a table's names must exist.
_LEAST_SHARE = 0.1

_Row = Mapping[str, Any]
_log = logging.getLogger(__name__)


def with_metadata(
    images: pa.Table, tables: Iterable[ObjectInfo], store: InputStore
) -> tuple[pa.Table, tuple[Ignored, ...]]:
    """Fill in the metadata of rows of `schema.LISTING`; also return what was ignored.

    Of several rows about one image, the first counts. Raises InputUnreadable if there are more
    metadata than memory may hold.
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
    """The images of a folder, by every name that a table may use. None marks ambiguous names."""

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
        """Return the URI of the image that a value names, or None.

        The value is a path from the table, a path inside the folder with the table's name (as
        img2dataset writes it), or a unique base name inside the table's folder.
        """
        if isinstance(value, list) and len(value) == 1:
            [value] = value
        if (text := key_text(name_in(value))) is None:
            return None
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
            _log.warning(
                "%s, a table beside images, cannot be read and is ignored: %s", table.uri, error
            )
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
        _log.info("%s: metadata of %d images, found by the column %s", table.uri, taken, column)

    def _text(self, row: _Row, table: ObjectInfo) -> str:
        text = metadata_json({name: json_value(value) for name, value in row.items()})
        self._chars += len(text)
        if self._chars > MAX_MANIFEST_CHARS:
            raise InputUnreadable(
                f"{table.uri}: more than {MAX_MANIFEST_CHARS >> 30} Gi characters of metadata; "
                "leave the table out (--exclude), or split the input"
            )
        return METADATA_LEFT_OUT if len(text) > MAX_METADATA_BYTES else text


def _column(rows: list[_Row], finder: _Finder) -> str | None:
    """Return the column that names the most images.

    Columns with names for image names come first, then those for keys, then others: a count may
    also name an image.
    """
    columns = dict.fromkeys(name for row in rows for name in row)
    shares = {name: _share(name, rows, finder) for name in columns}
    named = [name for name, share in shares.items() if share >= _LEAST_SHARE]
    return max(named, key=lambda name: (_likeliness(name), shares[name]), default=None)


def _likeliness(column: str) -> int:
    if order_of_column(column) is not None:
        return 2
    return 1 if column in KEY_COLUMNS else 0


def _share(name: str, rows: list[_Row], finder: _Finder) -> float:
    """Return the share of a column's values that name an image, each image counted once.

    Labels such as "7" may be names of images, but not of many.
    """
    values = [value for row in rows if (value := row.get(name)) not in (None, "")]
    named = {finder.find(value) for value in values} - {None}
    return len(named) / len(values) if values else 0.0
