"""Readers of tables of names: CSV and TSV, JSON and JSON Lines, lists of names, Parquet."""

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from itertools import chain
from typing import Any, BinaryIO, TextIO, cast

from pipeline.formats.decompression import COMPRESSIONS
from pipeline.formats.expanding import text_of
from pipeline.formats.limits import MAX_ROW_CHARS
from pipeline.formats.table.image_names import FILE_NAME_COLUMN, is_known_column, looks_like_image
from pipeline.formats.table.json_values import JsonValues
from pipeline.formats.table.parquet import table_rows
from pipeline.storage import InputStore, ObjectInfo

TableRow = Mapping[str, Any]
Read = Callable[[BinaryIO], Iterator[TableRow]]

_TEXTS = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson")
PARQUET_EXTENSIONS = (".parquet", ".pq")
MANIFEST_EXTENSIONS = (
    *(f"{name}{compression}" for name in _TEXTS for compression in ("", *COMPRESSIONS)),
    *PARQUET_EXTENSIONS,
)
"""Possible extensions of a manifest, in lower case."""

_DELIMITERS = ",\t;|"
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_SEP_LINE = re.compile(r"sep=(.)\s*", re.I)  # written by Excel
# Keys of a JSON object that hold its rows.
_LISTS = frozenset({"images", "data", "rows", "items", "samples", "records", "examples"})

# The default, 128 KiB for the whole process, would refuse base64 text as too large.
csv.field_size_limit(MAX_ROW_CHARS)


def rows_of(name: str, asked: str | None = None) -> Read:
    """Return the reader for a manifest of that name; `asked` names its column of images.

    The reader takes a seekable file. It raises ValueError, csv.Error, RecursionError,
    PARQUET_ERRORS, EXPANDING_ERRORS and InputUnreadable.
    """
    lower = name.lower()
    if lower.endswith(PARQUET_EXTENSIONS):
        return partial(table_rows, uri=name, asked=asked)
    for compression in COMPRESSIONS:
        lower = lower.removesuffix(compression)
    reads: dict[str, Callable[[TextIO], Iterator[TableRow]]] = {
        ".csv": partial(csv_rows, asked=asked),
        ".tsv": partial(csv_rows, asked=asked),
        ".txt": name_rows,
        ".json": json_rows,
    }
    read = next((read for end, read in reads.items() if lower.endswith(end)), json_line_rows)
    return lambda file: read(text_of(file))


# CSV


def csv_rows(text: TextIO, asked: str | None = None) -> Iterator[TableRow]:
    """Yield rows by the names in the first line, which also determines the delimiter.

    If the first line names no column but an image, all lines are rows, and the columns are
    `column0`, `column1`, ... Fields missing at the end of a line are null.
    """
    lines = _Lines(text)
    first = lines.first()
    delimiter = None
    if told := _SEP_LINE.fullmatch(first):
        delimiter, first = told[1], lines.first()
    delimiter = delimiter or _delimiter(first)
    reader = csv.reader(
        chain([first], lines),
        delimiter=delimiter,
        strict=True,
        # as in `a, "b, c"`, if the first line has the same form
        skipinitialspace=f"{delimiter} " in first,
    )
    header = [name.strip() for name in next(reader, [])]
    rows: Iterator[list[str]] = reader
    if _is_row(header, asked):
        rows = chain([header], reader)
        header = [f"column{number}" for number in range(len(header))]
    names = _distinct(header)
    for fields in rows:
        lines.taken = 0
        if any(field.strip() for field in fields[len(names) :]):
            raise ValueError(
                f"line {reader.line_num} has {len(fields)} fields, but the first line has "
                f"{len(names)}; put text that holds {delimiter!r} in quotes"
            )
        if any(field.strip() for field in fields):  # spreadsheets leave empty lines
            missing = [None] * (len(names) - len(fields))
            row = dict(zip(names, [*fields[: len(names)], *missing], strict=True))
            if row.get("") == "":  # from a delimiter at the end of each line
                del row[""]
            yield row


class _Lines:
    """Lines of text, with a limit per row: a quote that is never closed takes all lines."""

    def __init__(self, text: TextIO) -> None:
        self._text = text
        self.taken = 0  # characters since the last row

    def __iter__(self) -> Iterator[str]:
        return self

    def first(self) -> str:
        """Return the first line that is not empty; "" if there is none."""
        for line in self:
            self.taken = 0
            if line.strip():
                return line
        return ""

    def __next__(self) -> str:
        line = self._text.readline(MAX_ROW_CHARS)
        self.taken += len(line)
        if self.taken > MAX_ROW_CHARS:
            raise ValueError(_TOO_LARGE)
        if not line:
            raise StopIteration
        return line


_TOO_LARGE = (
    f"a row has more than {MAX_ROW_CHARS >> 20} Mi characters; close its quote, or write images as "
    "text to Parquet"
)


def _delimiter(first: str) -> str:
    """Return the delimiter that yields a known name, else the most frequent one."""
    bare = _QUOTED.sub("", first)
    found = sorted(
        (one for one in _DELIMITERS if one in bare),
        key=lambda one: (
            not any(is_known_column(name.strip(' "\r\n')) for name in first.split(one)),
            -bare.count(one),
        ),
    )
    return found[0] if found else ","


def _is_row(header: list[str], asked: str | None) -> bool:
    if asked in header or any(map(is_known_column, header)):
        return False
    return any(map(looks_like_image, header))


def _distinct(names: list[str]) -> list[str]:
    """Return distinct names: the second column of a name becomes NAME.1, as in pandas."""
    seen, found = Counter[str](), dict[str, None]()
    for name in names:
        other = name
        while other in found:
            seen[name] += 1
            other = f"{name}.{seen[name]}"
        found[other] = None
    return list(found)


# Names


def name_rows(text: TextIO) -> Iterator[TableRow]:
    """Yield one name per line, unchanged; skip empty lines."""
    lines = _Lines(text)
    for line in lines:
        lines.taken = 0
        if line.strip():
            yield {FILE_NAME_COLUMN: line.rstrip("\r\n")}


# JSON


def json_line_rows(text: TextIO) -> Iterator[TableRow]:
    """Yield one object or name per line, or those of an array; skip empty lines."""
    yield from _elements_or_lines(JsonValues(text))


def json_rows(text: TextIO) -> Iterator[TableRow]:
    """Yield rows of an array, an object that holds one or is keyed by names, or JSON Lines."""
    values = JsonValues(text)
    if values.peek() != "{":
        yield from _elements_or_lines(values)
    else:
        first, is_alone = values.first_line()
        is_document = first is None or (is_alone and _holds_rows(first))
        yield from _inside(values) if is_document else map(_row, values.lines())


def _holds_rows(value: Any) -> bool:
    return isinstance(value, dict) and any(
        (isinstance(inside, list) and key.lower() in _LISTS)
        or (isinstance(inside, dict) and looks_like_image(key))
        for key, inside in value.items()
    )


def _elements_or_lines(values: JsonValues) -> Iterator[TableRow]:
    return map(_row, values.elements() if values.peek() == "[" else values.lines())


def _row(value: Any) -> TableRow:
    if isinstance(value, str):
        return {FILE_NAME_COLUMN: value}
    if not isinstance(value, dict):
        raise ValueError("each row must be an object or a name")
    return value


def _inside(values: JsonValues) -> Iterator[TableRow]:
    """Yield rows of one object: `{"images": [...]}` as in COCO, or `{"a.jpg": {...}}`."""
    keys, is_by_name = list[str](), False
    for key in values.keys():  # noqa: SIM118
        kind = values.peek()
        if kind == "[" and key.lower() in _LISTS:
            yield from map(_row, values.elements())
            return
        if kind == "{" and looks_like_image(key):
            is_by_name = True
            yield {FILE_NAME_COLUMN: key, **values.value()}
        else:
            values.skip()
            keys.append(key)
    if not is_by_name:
        raise ValueError(
            f"it is one object with the keys {', '.join(keys):.300}, and none of them holds rows; "
            "make it an array of objects, or JSON Lines"
        )


def open_table(store: InputStore, source: ObjectInfo) -> AbstractContextManager[BinaryIO]:
    """Open a table of names: Parquet for random access, others for reading front to back."""
    if source.uri.lower().endswith(PARQUET_EXTENSIONS):
        return cast(AbstractContextManager[BinaryIO], store.ranged(source))
    return store.open(source)
