"""Rows of Arrow tables as samples: which column holds the image, which the key, what else there is.

An image is bytes of any Arrow type, a struct `{bytes, path}` as Hugging Face has it, or base64
text. Of several columns that could hold images the one is taken whose first values are images.
"""

import datetime
import decimal
import json
import math
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa

from kosmos2_core.annotation import Issue
from kosmos2_core.images.formats import HEAD_BYTES, format_of
from pipeline.errors import InputUnreadable
from pipeline.formats.limits import MAX_IMAGE_BYTES, MAX_METADATA_BYTES, MAX_NAME_CHARS
from pipeline.formats.sample import Sample, Unreadable, unreadable
from pipeline.formats.table.base64_images import decode_base64_image, is_base64_image
from pipeline.schema import metadata_json

KEY_COLUMNS = ("__key__", "key", "id")
LOOK_ROWS = 1000  # of a file's first rows, in which a column's values are looked for
_ENOUGH_VALUES = 4  # of a column, to see what they are
_LIKELY = ("image", "jpg", "jpeg", "png", "webp", "img", "bytes")
_LIKELY_TEXT = (*_LIKELY, "image_base64", "image_b64", "base64", "b64", "image_bytes", "image_data")
_LEAST_FIXED_BYTES = 64  # fixed-size ones that are shorter are hashes and UUIDs
_UNLISTED_MAGIC = (b"BM", b"P1", b"P2", b"P3", b"P4", b"P5", b"P6")  # BMP and PPM
_DEEPEST = 32  # nested fields; those of real data have three or four

# What a value that is not what its type says raises when it is looked at.
VALUE_ERRORS = (ValueError, ArithmeticError, LookupError, TypeError, OSError, pa.ArrowException)

FirstValues = Callable[[str], Iterable[pa.Scalar]]
"""Give the first values of a column, the same ones whenever the file is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageColumn:
    """A column, and the way to the image inside it: `images.0` is the first one of a list,
    `record.jpg` a field of a struct."""

    name: str
    steps: tuple[str | int, ...] = ()

    @property
    def path(self) -> str:
        return ".".join(map(str, (self.name, *self.steps)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Of one file: the image's, the key's, and those that become metadata."""

    image: ImageColumn
    key: str | None
    others: tuple[str, ...]

    @property
    def read(self) -> list[str]:
        keys = () if self.key is None or self.key in self.others else (self.key,)
        return [self.image.name, *keys, *self.others]


def find_columns(schema: pa.Schema, asked: str | None, uri: str, look: FirstValues) -> Columns:
    """Tell what each column is for.

    `asked` names the image's column. `look` is called only where the types do not tell.
    Raises InputUnreadable, naming what there is.
    """
    check_names(schema, uri)
    image = image_column_of(schema, asked, look)
    if image is None:
        raise InputUnreadable(_unknown(schema, asked, uri))
    return Columns(
        image=image,
        key=next((name for name in KEY_COLUMNS if name in schema.names), None),
        others=tuple(
            field.name
            for field in schema
            if field.name != image.name and not _is_stored_bytes(field.type)
        ),
    )


def check_names(schema: pa.Schema, uri: str) -> None:
    """Raises InputUnreadable where a name does not tell which column is meant."""
    if len(set(schema.names)) < len(schema.names):
        twice = next(name for name in schema.names if schema.names.count(name) > 1)
        raise InputUnreadable(f"{uri}: two of its columns have one name, {twice:.100}; rename one")


def image_column_of(schema: pa.Schema, asked: str | None, look: FirstValues) -> ImageColumn | None:
    """Find the column that holds the bytes of images, or None where none can be told."""
    if not asked:
        return _chosen(schema, look)
    column = column_of_path(schema, asked)
    kind = None if column is None else _type_of(schema, column)
    if column is None or kind is None:
        return None
    is_found = holds_images(kind) or (_is_text(kind) and _rank(column, kind, look) == _IMAGES)
    return column if is_found else None


def column_of_path(schema: pa.Schema, path: str) -> ImageColumn | None:
    """Find the column that `path` names: a column of that very name, or a value inside one."""
    parts = path.split(".")
    for end in range(len(parts), 0, -1):
        name = ".".join(parts[:end])
        if schema.names.count(name) == 1:
            steps = (int(part) if part.isdecimal() else part for part in parts[end:])
            column = ImageColumn(name=name, steps=tuple(steps))
            return column if _type_of(schema, column) is not None else None
    return None


def holds_images(column: pa.DataType) -> bool:
    """Return whether values of that type can be the bytes of one image."""
    return _is_bytes(column) or _is_image_struct(column)


def _type_of(schema: pa.Schema, column: ImageColumn) -> pa.DataType | None:
    kind = _stored(schema.field(column.name).type)
    for step in column.steps:
        if isinstance(step, int) and _is_list(kind):
            kind = _stored(kind.value_type)
        elif pa.types.is_struct(kind) and kind.get_field_index(str(step)) >= 0:
            kind = _stored(kind.field(str(step)).type)
        else:
            return None
    return kind


def _stored(kind: pa.DataType) -> pa.DataType:
    """What an extension or a dictionary is made of."""
    while True:
        if isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        elif pa.types.is_dictionary(kind):
            kind = kind.value_type
        else:
            return kind


def has_dictionaries(schema: pa.Schema) -> bool:
    """Return whether a column, or a value inside one, is dictionary-encoded."""
    return any(_has_dictionary(field.type) for field in schema)


def _has_dictionary(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    return bool(
        pa.types.is_dictionary(kind)
        or any(_has_dictionary(kind.field(i).type) for i in range(kind.num_fields))
    )


def _is_stored_bytes(kind: pa.DataType) -> bool:
    """Return whether such values are no metadata: JSON has no bytes."""
    kind = _stored(kind)
    return _is_binary(kind) or _is_image_struct(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or (pa.types.is_fixed_size_binary(kind) and kind.byte_width >= _LEAST_FIXED_BYTES)
    )


def _is_bytes(kind: pa.DataType) -> bool:
    kind = _stored(kind)
    if _is_list(kind):
        return bool(pa.types.is_uint8(kind.value_type) or pa.types.is_int8(kind.value_type))
    return _is_binary(kind)


def _is_text(kind: pa.DataType) -> bool:
    kind = _stored(kind)
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    )


def _is_image_struct(kind: pa.DataType) -> bool:
    """Return whether it is Hugging Face's `{bytes, path}`, or has such bytes among others."""
    kind = _stored(kind)
    index = kind.get_field_index("bytes") if pa.types.is_struct(kind) else -1
    if index < 0:
        return False
    inside = kind.field(index).type
    return _is_bytes(inside) or (_is_text(inside) and kind.get_field_index("path") >= 0)


def _is_several(kind: pa.DataType) -> bool:
    """Return whether a value can be several images."""
    kind = _stored(kind)
    return _is_list(kind) and holds_images(kind.value_type)


def _unknown(schema: pa.Schema, asked: str | None, uri: str) -> str:
    columns = ", ".join(f"{field.name} ({field.type})"[:80] for field in schema)
    found = column_of_path(schema, asked) if asked else None
    said = f"no images in a column {asked}" if asked else "which column holds images?"
    if found is not None and _is_text(_type_of(schema, found)):
        said += (
            ": its texts are not images in base64. Where they name images, take "
            "--input-format manifest."
        )
    several = [field.name for field in schema if _is_several(field.type)]
    name = asked if asked in several else next(iter(several), None)
    inside = f" (of several images in a row, the first one is {name}.0)" if name else ""
    return (
        f"{uri}: {said} It has {columns:.1000}; name one of bytes or {{bytes, path}} with "
        f"--image-column{inside}"
    )


# ---- of several columns, one

_EMPTY, _BYTES, _IMAGES = range(3)


def _chosen(schema: pa.Schema, look: FirstValues) -> ImageColumn | None:
    """By the values of the first rows; where they do not tell, by name.

    A column that `datasets` calls an image comes first, then those of likely names, then others,
    of which only one may hold images.
    """
    found, named = _candidates(schema)
    types = {field.name: field.type for field in schema}
    certain = [name for name in found if _is_stored_bytes(types[name])]
    if len(found) == 1 and found == certain:
        return ImageColumn(name=found[0])
    ranks = dict[str, int]()
    for name in dict.fromkeys((*named, *found)):
        ranks[name] = _rank(ImageColumn(name=name), types[name], look)
        if name in named and ranks[name] == _IMAGES:
            return ImageColumn(name=name)
    for names in (
        [name for name in named if ranks[name] == _BYTES][:1],
        [name for name in found if name not in named and ranks[name] == _IMAGES],
        [name for name in named if holds_images(types[name])][:1],
        certain,
    ):
        if names:
            return ImageColumn(name=names[0]) if len(names) == 1 else None
    return None


def surely_holds_images(schema: pa.Schema, asked: str | None, look: FirstValues) -> bool:
    """Return whether a table is one of images, even if it has columns of names as well."""
    if asked:
        return image_column_of(schema, asked, look) is not None
    found, named = _candidates(schema)
    types = {field.name: field.type for field in schema}
    return (
        any(holds_images(types[name]) for name in named)
        or any(_is_image_struct(types[name]) or _is_several(types[name]) for name in types)
        or any(_rank(ImageColumn(name=name), types[name], look) == _IMAGES for name in found)
    )


def _candidates(schema: pa.Schema) -> tuple[list[str], list[str]]:
    """Columns that could hold images, and those of them whose names say so, likely ones first.

    Texts could only where they are called so, or where there are no bytes.
    """
    types = {field.name: field.type for field in schema}
    features = _features(schema)
    texts = [name for name in types if _is_text(types[name])]
    found = [
        *(name for name in types if holds_images(types[name])),
        *(name for name in texts if name.lower() in _LIKELY_TEXT),
    ] or texts
    named = [
        *(name for name in found if features.get(name) == "Image"),
        *(name for likely in _LIKELY_TEXT for name in found if name.lower() == likely),
    ]
    return found, list(dict.fromkeys(named))


def _rank(column: ImageColumn, kind: pa.DataType, look: FirstValues) -> int:
    rank = _EMPTY
    try:
        for cell in islice(_values(column, look), _ENOUGH_VALUES):
            if _is_image(cell):
                return _IMAGES
            rank = _EMPTY if _is_text(kind) else _BYTES
    except VALUE_ERRORS:
        pass
    return rank


def _values(column: ImageColumn, look: FirstValues) -> Iterator[pa.Buffer]:
    for cell in islice(look(column.name), LOOK_ROWS):
        data, _, _ = _found(cell, column.steps)
        if data is not None and data.size:
            yield data


def _is_image(data: pa.Buffer) -> bool:
    head = data[: min(data.size, 512)].to_pybytes()
    return (
        format_of(head[:HEAD_BYTES]) is not None
        or head.startswith(_UNLISTED_MAGIC)
        or is_base64_image(head)
    )


def _features(schema: pa.Schema) -> Mapping[str, str]:
    """Column -> kind, from the metadata that `datasets` writes."""
    try:
        said = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: feature["_type"] for name, feature in said.items() if "_type" in feature}
    except (LookupError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def looked_at(batches: Sequence[pa.RecordBatch], name: str) -> Iterator[pa.Scalar]:
    """The values of a column in batches that are read already."""
    for batch in batches:
        column = batch[name]
        for place in range(len(column)):
            yield column[place]


# ---- samples


def samples_of_batch(
    batch: pa.RecordBatch, columns: Columns, *, index: int, row: int
) -> Iterator[Sample | Unreadable]:
    """`index` and `row` are the first one's, in its shard and in its file."""
    for place in range(batch.num_rows):
        yield _sample(batch, place, columns, index=index + place, row=row + place)


def _sample(
    batch: pa.RecordBatch, place: int, columns: Columns, *, index: int, row: int
) -> Sample | Unreadable:
    key, path, is_text = str(row), None, False
    try:
        key = _key(batch, place, columns) or key
        data, path, is_text = _found(batch[columns.image.name][place], columns.image.steps)
    except VALUE_ERRORS as error:
        said = f"its values cannot be read: {error}"[:500]
        return unreadable(index, key, None, "corrupt_row", said)
    if len(key) > MAX_NAME_CHARS:
        said = f"its key has more than {MAX_NAME_CHARS} characters; here is some"
        return unreadable(index, key, path, "name_too_long", said)
    if data is None:
        return unreadable(index, key, path, "no_image", _nothing_in(columns.image, path))
    if data.size > MAX_IMAGE_BYTES:
        said = f"the image has more than {MAX_IMAGE_BYTES >> 20} MiB"
        return unreadable(index, key, path, "member_too_large", said)
    try:
        image = _image_bytes(data, is_text=is_text)
    except ValueError as error:
        return unreadable(index, key, path, "corrupt_row", str(error))
    metadata, issues = _metadata(batch, place, columns.others)
    return Sample(
        index=index,
        key=key,
        member=path,
        image_offset=None,
        data=image,
        metadata=metadata,
        issues=issues,
    )


def _key(batch: pa.RecordBatch, place: int, columns: Columns) -> str | None:
    value = batch[columns.key][place].as_py() if columns.key is not None else None
    is_name = isinstance(value, str | int) and not isinstance(value, bool)
    return str(value) if is_name and value != "" else None


def _found(
    cell: pa.Scalar, steps: Sequence[str | int]
) -> tuple[pa.Buffer | None, str | None, bool]:
    """Find the bytes, not copied yet, the path that Hugging Face keeps beside them, and whether
    they are text. Raises one of VALUE_ERRORS."""
    cell = _inside(cell)
    for step in steps:
        if not cell.is_valid:
            return None, None, False
        if isinstance(step, int) and not isinstance(cell, pa.StructScalar):
            if step >= len(cell.values):
                return None, None, False
            cell = _inside(cell.values[step])
        else:
            cell = _inside(cell[str(step)])
    path = None
    if isinstance(cell, pa.StructScalar) and cell.is_valid:
        name = cell["path"].as_py() if "path" in cell else None
        path = name[:MAX_NAME_CHARS] if isinstance(name, str) else None
        cell = _inside(cell["bytes"])
    if not cell.is_valid:
        return None, path, False
    if _is_list(cell.type):
        return _buffer_of_list(cell.values), path, False
    return cell.as_buffer(), path, _is_text(cell.type)


def _inside(cell: pa.Scalar) -> pa.Scalar:
    """The value of an extension or a dictionary."""
    while cell.is_valid and isinstance(cell, pa.ExtensionScalar | pa.DictionaryScalar):
        cell = cell.value
    return cell


def _buffer_of_list(values: pa.Array) -> pa.Buffer:
    if values.null_count:
        raise ValueError("some of its bytes are null")
    return pa.py_buffer(values.to_numpy(zero_copy_only=False).tobytes())


def _image_bytes(data: pa.Buffer, *, is_text: bool) -> bytes:
    """The encoded image, out of base64 where it is in that. Raises ValueError."""
    found: bytes = data.to_pybytes()
    if is_text or (format_of(found[:HEAD_BYTES]) is None and is_base64_image(found)):
        return decode_base64_image(found)
    return found


def _nothing_in(column: ImageColumn, path: str | None) -> str:
    if path is None:
        return f"no bytes in the column {column.path}"
    return (
        f"no bytes in the column {column.path}, only the path {path:.200}; where there is such a "
        f"file, name the column of paths: --image-column {column.path}.path"
    )


def _metadata(
    batch: pa.RecordBatch, place: int, names: tuple[str, ...]
) -> tuple[str | None, tuple[Issue, ...]]:
    """Strict JSON; what is too large or cannot be read is left out, which an issue says."""
    if not names:
        return None, ()
    fields, issues = dict[str, Any](), set[Issue]()
    for name in names:
        cell = batch[name][place]
        try:
            fields[name] = json_value(cell.as_py())
        except (*VALUE_ERRORS, RecursionError):
            issues.add(Issue.METADATA_INVALID)
    text = metadata_json(fields)
    if len(text) > MAX_METADATA_BYTES:
        return None, (*sorted(issues), Issue.METADATA_TOO_LARGE)
    return text, tuple(sorted(issues))


def json_value(value: Any, depth: int = 0) -> Any:
    """As JSON has it: times in ISO format, numbers that are none and bytes as null.

    Raises ValueError for what is nested too deeply.
    """
    if depth > _DEEPEST:
        raise ValueError("nested too deeply")
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case datetime.datetime() | datetime.date() | datetime.time():
            return value.isoformat()
        case datetime.timedelta():
            return value.total_seconds()
        case decimal.Decimal() | uuid.UUID():
            return str(value)
        case dict():
            return {str(name): json_value(each, depth + 1) for name, each in value.items()}
        case list() | tuple():
            return [json_value(each, depth + 1) for each in value]
    return None
