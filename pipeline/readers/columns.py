"""Rows of Arrow tables as samples: which column holds the image, which the key, what else there is.

Hugging Face's image columns are structs `{bytes, path}`; others hold the bytes alone.
"""

import datetime
import decimal
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from kosmos2_core.annotation import Issue
from pipeline.errors import InputUnreadable
from pipeline.readers.limits import MAX_IMAGE_BYTES, MAX_METADATA_BYTES, MAX_NAME_CHARS
from pipeline.readers.sample import Sample, Unreadable
from pipeline.schema import metadata_json

KEY_COLUMNS = ("__key__", "key", "id")
_LIKELY = ("image", "jpg", "jpeg", "png", "webp", "img", "bytes")
_DEEPEST = 32  # nested fields; those of real data have three or four

# What a value that is not what its type says raises when it is looked at.
VALUE_ERRORS = (ValueError, ArithmeticError, LookupError, TypeError, OSError, pa.ArrowException)


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Of one file: the image's, the key's, and those that become metadata."""

    image: str
    key: str | None
    others: tuple[str, ...]

    @property
    def read(self) -> list[str]:
        keys = () if self.key is None or self.key in self.others else (self.key,)
        return [self.image, *keys, *self.others]


def columns_of(schema: pa.Schema, asked: str | None, uri: str) -> Columns:
    """`asked` names the image's column. Raises InputUnreadable, naming what there is."""
    if len(set(schema.names)) < len(schema.names):
        raise InputUnreadable(f"{uri}: two of its columns have one name; rename one")
    found = [field.name for field in schema if holds_images(field.type)]
    image = asked or _chosen(schema, found)
    if image not in found:
        columns = ", ".join(f"{field.name} ({field.type})"[:80] for field in schema)
        raise InputUnreadable(
            f"{uri}: {f'no images in a column {asked}' if asked else 'which column holds images?'} "
            f"It has {columns:.1000}; name one of bytes or {{bytes, path}} with --image-column"
        )
    return Columns(
        image=image,
        key=next((name for name in KEY_COLUMNS if name in schema.names), None),
        others=tuple(
            field.name for field in schema if field.name != image and not holds_images(field.type)
        ),
    )


def holds_images(column: pa.DataType) -> bool:
    if pa.types.is_struct(column):
        index = column.get_field_index("bytes")
        return index >= 0 and _is_bytes(column.field(index).type)
    return _is_bytes(column)


def _is_bytes(column: pa.DataType) -> bool:
    return bool(pa.types.is_binary(column) or pa.types.is_large_binary(column))


def _chosen(schema: pa.Schema, found: list[str]) -> str:
    """As `datasets` says, else by its name, else the only one there is; "" where none is."""
    features = _features(schema)
    images = [name for name in found if features.get(name) == "Image"]
    likely = [name for name in _LIKELY if name in found]
    for names in (images[:1], likely[:1], found):
        if len(names) == 1:
            return names[0]
    return ""


def _features(schema: pa.Schema) -> Mapping[str, str]:
    """Column -> kind, from the metadata that `datasets` writes."""
    try:
        said = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: feature["_type"] for name, feature in said.items() if "_type" in feature}
    except (LookupError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def samples_of_batch(
    batch: pa.RecordBatch, columns: Columns, *, index: int, row: int
) -> Iterator[Sample | Unreadable]:
    """`index` and `row` are the first one's, in its shard and in its file."""
    for place in range(batch.num_rows):
        yield _sample(batch, place, columns, index=index + place, row=row + place)


def _sample(
    batch: pa.RecordBatch, place: int, columns: Columns, *, index: int, row: int
) -> Sample | Unreadable:
    key, path = str(row), None
    try:
        key = _key(batch, place, columns) or key
        data, path = _image(batch[columns.image][place])
    except VALUE_ERRORS as error:
        return _unreadable(index, key, None, "corrupt_row", f"its values cannot be read: {error}")
    if len(key) > MAX_NAME_CHARS:
        said = f"its key has more than {MAX_NAME_CHARS} characters; here is some"
        return _unreadable(index, key, path, "name_too_long", said)
    if data is None:
        said = f"no bytes in the column {columns.image}; are the images beside the file?"
        return _unreadable(index, key, path, "no_image", said)
    if len(data) > MAX_IMAGE_BYTES:
        said = f"the image has more than {MAX_IMAGE_BYTES >> 20} MiB"
        return _unreadable(index, key, path, "member_too_large", said)
    metadata, issues = _metadata(batch, place, columns.others)
    return Sample(
        index=index,
        key=key,
        member=path,
        image_offset=None,
        data=data.to_pybytes(),
        metadata=metadata,
        issues=issues,
    )


def _unreadable(
    index: int, key: str, path: str | None, error_type: str, message: str
) -> Unreadable:
    return Unreadable(
        index=index,
        key=key[:MAX_NAME_CHARS],
        member=path,
        error_type=error_type,
        message=f"{message:.500}",
    )


def _key(batch: pa.RecordBatch, place: int, columns: Columns) -> str | None:
    value = batch[columns.key][place].as_py() if columns.key is not None else None
    is_name = isinstance(value, str | int) and not isinstance(value, bool)
    return str(value) if is_name and value != "" else None


def _image(cell: pa.Scalar) -> tuple[pa.Buffer | None, str | None]:
    """The bytes, not copied yet, and the path that Hugging Face keeps beside them."""
    if not isinstance(cell, pa.StructScalar):
        return cell.as_buffer(), None
    if not cell.is_valid:
        return None, None
    path = cell["path"].as_py() if "path" in cell else None
    return cell["bytes"].as_buffer(), path[:MAX_NAME_CHARS] if isinstance(path, str) else None


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
            fields[name] = plain(cell.as_py())
        except (*VALUE_ERRORS, RecursionError):
            issues.add(Issue.METADATA_INVALID)
    text = metadata_json(fields)
    if len(text) > MAX_METADATA_BYTES:
        return None, (*sorted(issues), Issue.METADATA_TOO_LARGE)
    return text, tuple(sorted(issues))


def plain(value: Any, depth: int = 0) -> Any:
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
        case decimal.Decimal():
            return str(value)
        case dict():
            return {str(name): plain(each, depth + 1) for name, each in value.items()}
        case list() | tuple():
            return [plain(each, depth + 1) for each in value]
    return None
