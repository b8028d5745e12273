"""Records in the files of an export, as `croissant.json` describes them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipeline.exports.options import ExportOptions

_PARQUET, _JSON = "application/x-parquet", "application/json"

# Arrow's types -> those of Croissant.
_TYPES = {
    pa.string(): "sc:Text",
    pa.bool_(): "sc:Boolean",
    pa.int8(): "cr:Int8",
    pa.int16(): "cr:Int16",
    pa.int32(): "cr:Int32",
    pa.int64(): "cr:Int64",
    pa.uint8(): "cr:UInt8",
    pa.uint16(): "cr:UInt16",
    pa.uint32(): "cr:UInt32",
    pa.uint64(): "cr:UInt64",
    pa.float32(): "cr:Float32",
    pa.float64(): "cr:Float64",
}
_FROM_PYTHON = {str: "sc:Text", int: "cr:Int64", float: "cr:Float64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordField:
    """A field of a record.

    Exactly one of `column`, `json_path` and `file_property` says where it is in a file. `shape` has
    the dimensions of a list, -1 for any. `path` leads to the value within its column. A field with
    `parts` is a list of records.
    """

    name: str
    type: str | None = None
    column: str | None = None
    json_path: str | None = None
    file_property: str | None = None
    path: str | None = None
    shape: tuple[int, ...] = ()
    parts: tuple["RecordField", ...] = ()


_FILE_NAME = RecordField(name="file_name", type="sc:Text", file_property="filename")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordSet:
    """Records of one kind in the files that match the pattern `files`.

    `archives` is the pattern of the tars that hold these files, if they are in tars.
    """

    name: str
    about: str
    files: str
    fields: tuple[RecordField, ...]
    encodings: tuple[str, ...] = (_JSON,)
    archives: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportContents:
    """The values that decide what is in the files of an export.

    `carried` are the columns of --carry, `kinds` the kinds of the shards (`spec.kinds`).
    """

    options: ExportOptions  # `images` is no longer "auto"
    carried: Sequence[pa.Field]
    tasks: Sequence[str]
    kinds: frozenset[str]

    def pixels(self, files: str) -> tuple[RecordSet, ...]:
        """Describe the image files beside the annotations, if images are embedded."""
        if self.options.images != "embed":
            return ()
        content = RecordField(name="image", type="sc:ImageObject", file_property="content")
        return (
            RecordSet(
                name="pixels",
                about="Images, upright.",
                files=files,
                encodings=("image/jpeg", "image/png", "image/webp"),
                fields=(_FILE_NAME, content),
            ),
        )


def table_records(about: str, schema: pa.Schema, files: str = "data/*.parquet") -> RecordSet:
    """Describe the rows of Parquet files."""
    fields = tuple(each for column in schema for each in _of_column(column))
    return RecordSet(name="rows", about=about, files=files, encodings=(_PARQUET,), fields=fields)


def json_fields(prefix: str, **types: type) -> tuple[RecordField, ...]:
    """Describe the fields below a JSONPath: strings, integers, numbers, or lists of numbers."""
    return tuple(
        RecordField(
            name=name,
            json_path=f"{prefix}.{name}",
            type=_FROM_PYTHON[float if kind is list else kind],
            shape=(-1,) if kind is list else (),
        )
        for name, kind in types.items()
    )


def file_fields(content: str) -> tuple[RecordField, ...]:
    """Describe files that are a record each, by their name and their text, called `content`."""
    return (_FILE_NAME, RecordField(name=content, type="sc:Text", file_property="content"))


def _of_column(column: pa.Field) -> Iterator[RecordField]:
    """Describe a column; leave out what Croissant's readers cannot reach."""
    kind, shape = _element(column.type)
    if known := _TYPES.get(kind):
        yield RecordField(name=column.name, type=known, column=column.name, shape=shape)
    elif pa.types.is_struct(kind) and column.name == "image":
        yield RecordField(name="image", type="sc:ImageObject", column="image", path="bytes")
    elif pa.types.is_struct(kind):
        parts = tuple(_parts(column.name, kind))
        yield RecordField(name=column.name, column=column.name, shape=shape, parts=parts)


def _parts(column: str, kind: pa.DataType) -> Iterator[RecordField]:
    """Describe the plain fields of records in a column. A reader sees one value of each path."""
    for field in kind:
        if known := _TYPES.get(field.type):
            yield RecordField(name=field.name, type=known, column=column, path=field.name)


def _element(kind: pa.DataType) -> tuple[pa.DataType, tuple[int, ...]]:
    shape: tuple[int, ...] = ()
    while pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind, shape = kind.value_type, (*shape, -1)
    return kind, shape
