"""A manifest: a table of picture URIs (CSV, JSON Lines, Parquet) -> rows of `schema.LISTING`.

Its other columns are the samples' metadata. Read once, when the plan is made; the plan holds what
it said.
"""

import csv
import io
import json
import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO

import pyarrow as pa

from pipeline.errors import InputUnreadable, StorageUrlError
from pipeline.files import PARQUET_ERRORS
from pipeline.readers.columns import KEY_COLUMNS, plain
from pipeline.readers.limits import (
    MAX_METADATA_BYTES,
    MAX_NAME_CHARS,
    METADATA_LEFT_OUT,
    URI_LEFT_OUT,
)
from pipeline.schema import LISTING, metadata_json
from pipeline.storage.objects import Location, locate

URI_COLUMNS = (
    *("uri", "url", "image_uri", "image_url", "image_path", "file_name", "path", "file", "image"),
)
MAX_LINE_BYTES = 4 << 20
MAX_MANIFEST_CHARS = 2 << 30  # of metadata, which are in memory while the plan is made
_ROWS_AT_A_TIME = 10_000

Row = Mapping[str, Any]
# Of what was read in full, so each problem is one of its format.
_ROW_ERRORS = (ValueError, csv.Error, RecursionError)


def manifest_rows(
    file: BinaryIO, at: Location, asked: str | None, rows: Callable[[BinaryIO], Iterable[Row]]
) -> pa.Table:
    """All of a manifest at `at`; `asked` names the column of the URIs, `rows` reads its format.

    Relative names are taken from the manifest's folder. A row without a name stays one, without a
    picture. Raises InputUnreadable, naming the line.
    """
    tables, batch, column = [LISTING.empty_table()], list[Row](), asked
    done = chars = 0
    try:
        for row in rows(file):
            column = column or _uri_column(row, at)
            batch.append(_listed(row, column, at))
            chars += len(batch[-1]["metadata"] or "")
            if chars > MAX_MANIFEST_CHARS:
                raise ValueError(f"more than {MAX_MANIFEST_CHARS >> 30} Gi characters: split it")
            done += 1
            if len(batch) == _ROWS_AT_A_TIME:
                tables.append(pa.Table.from_pylist(batch, schema=LISTING))
                batch = []
    except (*_ROW_ERRORS, *PARQUET_ERRORS) as error:
        raise InputUnreadable(
            f"{at.uri}: cannot be read after {done} rows: {str(error) or type(error).__name__:.300}"
        ) from error
    table = pa.concat_tables([*tables, pa.Table.from_pylist(batch, schema=LISTING)])
    if table.num_rows and table["uri"].null_count == table.num_rows:
        raise InputUnreadable(f"{at.uri}: no row has a text in its column {column}")
    return table


def csv_rows(file: BinaryIO) -> Iterator[Row]:
    """By the names in the first line."""
    lines = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    for row in csv.DictReader(lines, strict=True):
        if None in row or None in row.values():
            raise ValueError("it has another number of fields than the first line")
        yield row


def json_rows(file: BinaryIO) -> Iterator[Row]:
    """One object a line; empty lines are none."""
    while line := file.readline(MAX_LINE_BYTES):
        if len(line) == MAX_LINE_BYTES:
            raise ValueError(f"a line has more than {MAX_LINE_BYTES >> 20} MiB")
        if line.strip():
            row = json.loads(line, parse_constant=lambda _: None)
            if not isinstance(row, dict):
                raise ValueError("each line has to be an object")
            yield row


def uri_column_of(names: Iterable[str]) -> str | None:
    there = set(names)
    return next((name for name in URI_COLUMNS if name in there), None)


def _uri_column(row: Row, at: Location) -> str:
    column = uri_column_of(row)
    if column is None:
        raise InputUnreadable(
            f"{at.uri}: which column names the pictures? It has {', '.join(row):.500}; say which "
            "with --image-column"
        )
    return column


def _listed(row: Row, column: str, at: Location) -> Row:
    uri = row.get(column)
    others = {name: plain(value) for name, value in row.items() if name != column}
    text = metadata_json(others) if others else None
    # One that is too large says so when its sample is read, and need not be kept for that.
    is_too_large = text is not None and len(text) > MAX_METADATA_BYTES
    return {
        "uri": _absolute(uri, at) if isinstance(uri, str) and uri.strip() else None,
        "key": _key(row),
        "metadata": METADATA_LEFT_OUT if is_too_large else text,
    }


def _key(row: Row) -> str | None:
    for name in KEY_COLUMNS:
        value = row.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
            return str(value)[: MAX_NAME_CHARS + 1]
    return None


def _absolute(uri: str, at: Location) -> str:
    """`a/b.jpg` is beside the manifest, wherever that is."""
    uri = uri.strip()[: MAX_NAME_CHARS + 1]
    if "://" not in uri:
        uri = f"{at.scheme}://{posixpath.join(posixpath.dirname(at.path), uri)}"
    try:
        return locate(uri).uri
    except StorageUrlError:
        return URI_LEFT_OUT
