"""Manifests: a table of names of images becomes rows of `schema.LISTING`.

Its other columns are the samples' metadata. It is read once, for the plan, which holds its content.
"""

import csv
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, BinaryIO

import pyarrow as pa

from pipeline.errors import InputUnreadable
from pipeline.formats.expanding import EXPANDING_ERRORS
from pipeline.formats.limits import MAX_METADATA_BYTES, MAX_NAME_CHARS, METADATA_LEFT_OUT
from pipeline.formats.table.base64_images import is_base64_image
from pipeline.formats.table.cells import json_value, key_text
from pipeline.formats.table.columns import KEY_COLUMNS, ImageColumn
from pipeline.formats.table.image_names import (
    Exists,
    ImageNames,
    is_from_web,
    looks_like_image,
    name_in,
    order_of_column,
)
from pipeline.formats.table.rows import TableRow
from pipeline.parquet import PARQUET_ERRORS
from pipeline.schema import LISTING, metadata_json
from pipeline.spec.fields import value_inside
from pipeline.storage.objects import Location

FIRST_ROWS = 256  # the first rows, which determine the column of the images
MAX_MANIFEST_CHARS = 2 << 30  # for names, and for metadata, in memory while the plan is made
_ENOUGH_NAMES = 4  # of a column, looked up in the store
_ROWS_AT_A_TIME = 10_000

# Errors of a file that was read in full, so each is a problem of its format.
ROW_ERRORS = (ValueError, csv.Error, RecursionError, *EXPANDING_ERRORS, *PARQUET_ERRORS)

_log = logging.getLogger(__name__)


def manifest_rows(
    file: BinaryIO,
    at: Location,
    asked: str | None,
    rows: Callable[[BinaryIO], Iterable[TableRow]],
    exists: Exists,
) -> pa.Table:
    """Read a whole manifest at `at`.

    `asked` names the column of the images; `rows` reads the format. Relative names are resolved
    from the manifest's folder. `exists` is called for a few names that can be read in several ways.
    A row without a name stays, without an image. Raises InputUnreadable, naming the line.
    """
    tables, batch = [LISTING.empty_table()], list[TableRow]()
    names = ImageNames(at, exists)
    first, done, chars = list[TableRow](), 0, [0, 0]
    column = None
    try:
        found = iter(rows(file))
        first.extend(islice(found, FIRST_ROWS))
        column = name_column(first, at, asked, exists) if first else None
        for row in chain(first, found):
            assert column is not None, "there is a first row"
            batch.append(_listed(row, column, names))
            chars[0] += len(batch[-1]["metadata"] or "")
            chars[1] += len(batch[-1]["uri"] or "-") + len(batch[-1]["key"] or "")
            if max(chars) > MAX_MANIFEST_CHARS:
                raise ValueError(
                    f"more than {MAX_MANIFEST_CHARS >> 30} Gi characters; split the manifest"
                )
            done += 1
            if len(batch) == _ROWS_AT_A_TIME:
                tables.append(pa.Table.from_pylist(batch, schema=LISTING))
                batch = []
    except ROW_ERRORS as error:
        read = max(done, len(first))
        raise InputUnreadable(
            f"{at.uri}: cannot be read after {read} rows: {_reason(error)}"
        ) from error
    table = pa.concat_tables([*tables, pa.Table.from_pylist(batch, schema=LISTING)])
    if column is not None and table["uri"].null_count == table.num_rows:
        raise InputUnreadable(f"{at.uri}: {_nothing_in(column, first)}")
    return table


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return (
            f"it is not in UTF-8 ({error}); convert it, for example with "
            "iconv -f WINDOWS-1252 -t UTF-8"
        )[:400]
    return f"{str(error) or type(error).__name__:.400}"


def _nothing_in(column: ImageColumn, rows: Sequence[TableRow]) -> str:
    said = f"no row has text in the column {column.path}"
    values = [value for row in rows if (value := _name_in(column, row)) is not None]
    if values and isinstance(values[0], list):
        return f"{said}, but lists; choose one of each with --image-column {column.path}.0"
    return f"{said}; choose another with --image-column"


# The choice of the column


def name_column(
    rows: Sequence[TableRow], at: Location, asked: str | None, exists: Exists
) -> ImageColumn:
    """Choose the column that names the images, by its name and the values of the first rows.

    A column whose images are in the store comes first, then one of web URLs, then one of other
    names. Raises InputUnreadable if none can be chosen.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if asked:
        column = _asked(columns, asked)
        _refuse_base64(column, rows, at)
        return column
    named = sorted(
        (name for name in columns if order_of_column(name) is not None),
        key=lambda name: order_of_column(name) or 0,
    )
    ranks = {name: _rank(ImageColumn(name), rows, at, exists) for name in named}
    if min(ranks.values(), default=_OTHER) >= _OTHER:
        others = [ImageColumn(name) for name in columns if name not in ranks]
        ranks |= _best(
            {
                other.name: _rank(other, rows, at, exists)
                for other in others
                if _all_look_like_images(other, rows)
            }
        )
    if not ranks:
        raise InputUnreadable(
            f"{at.uri}: no column could be chosen for the names of images; the columns are "
            f"{', '.join(columns):.500}; choose one with --image-column"
        )
    column = ImageColumn(min(ranks, key=lambda name: ranks[name]))
    _refuse_base64(column, rows, at)
    if len(ranks) > 1:
        _log.info(
            "%s: the column %r names the images (of %s); --image-column chooses another",
            at.uri,
            column.name,
            ", ".join(ranks),
        )
    return column


def names_images(rows: Iterable[TableRow], at: Location, asked: str | None, exists: Exists) -> bool:
    """Return whether a table names images, in a column that can be chosen."""
    try:
        first = list(islice(rows, FIRST_ROWS))
        column = name_column(first, at, asked, exists)
    except (InputUnreadable, *ROW_ERRORS):
        return False
    if column.steps:
        return any(True for _ in _texts(column, first))
    return any(column.name in row for row in first)


def _best(ranks: Mapping[str, int]) -> Mapping[str, int]:
    """Return the column that is better than all others; none in a tie."""
    best = [name for name, rank in ranks.items() if rank == min(ranks.values())]
    return {name: ranks[name] for name in best} if len(best) == 1 else {}


def _asked(columns: Sequence[str], asked: str) -> ImageColumn:
    """Return a column of exactly that name, a value inside one, or one that differs in case."""
    if column := ImageColumn.of_path(asked, columns):
        return column
    alike = [name for name in columns if name.strip().lower() == asked.strip().lower()]
    return ImageColumn(alike[0] if len(alike) == 1 else asked)


# Ranks of how well the values of a column name images, best first.
_IN_STORE, _ON_WEB, _NAMES, _OTHER, _BASE64, _NONE = range(6)


def _rank(column: ImageColumn, rows: Sequence[TableRow], at: Location, exists: Exists) -> int:
    texts = list(islice(_texts(column, rows), _ENOUGH_NAMES))
    if not texts:
        return _NONE
    if _is_base64(texts[0]):
        return _BASE64
    names = ImageNames(at, exists)
    near = [text for text in texts if not is_from_web(text)]
    if any(exists(uri) for text in near if (uri := names.uri_of(text)) is not None):
        return _IN_STORE
    if len(near) < len(texts):
        return _ON_WEB
    return _NAMES if any(map(looks_like_image, texts)) else _OTHER


def _texts(column: ImageColumn, rows: Sequence[TableRow]) -> Iterator[str]:
    values = (_name_in(column, row) for row in rows)
    return (value for value in values if isinstance(value, str) and value.strip())


def _all_look_like_images(column: ImageColumn, rows: Sequence[TableRow]) -> bool:
    texts = list(_texts(column, rows))
    return bool(texts) and all(map(looks_like_image, texts))


def _refuse_base64(column: ImageColumn, rows: Sequence[TableRow], at: Location) -> None:
    if any(map(_is_base64, islice(_texts(column, rows), 1))):
        raise InputUnreadable(
            f"{at.uri}: the column {column.path} holds images as base64 text, not names; convert "
            "the file to Parquet, with base64 text or bytes"
        )


def _is_base64(text: str) -> bool:
    return is_base64_image(text[:1024].encode("utf-8", "replace"))


# Rows


def _listed(row: TableRow, column: ImageColumn, names: ImageNames) -> TableRow:
    others = {
        name: json_value(value)
        for name, value in row.items()
        if name != column.name or column.steps
    }
    text = metadata_json(others) if others else None
    # Metadata that are too large need not be kept: the sample reports them when it is read.
    is_too_large = text is not None and len(text) > MAX_METADATA_BYTES
    return {
        "uri": names.uri_of(_name_in(column, row)),
        "key": _key(row),
        "metadata": METADATA_LEFT_OUT if is_too_large else text,
    }


def _name_in(column: ImageColumn, row: TableRow) -> Any:
    return name_in(value_inside(row, (column.name, *column.steps)))


def _key(row: TableRow) -> str | None:
    keys = (key_text(row.get(name)) for name in KEY_COLUMNS)
    return next((key[: MAX_NAME_CHARS + 1] for key in keys if key is not None), None)
