"""A value of a column as an image or as JSON."""

import datetime
import decimal
import math
import uuid
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from kosmos2_core.images.formats import HEAD_BYTES, format_of
from pipeline.formats.limits import MAX_NAME_CHARS
from pipeline.formats.table.arrow_types import holds_text, is_list_type
from pipeline.formats.table.base64_images import decode_base64_image, is_base64_image

# Errors of a value that does not have its declared type.
VALUE_ERRORS = (ValueError, ArithmeticError, LookupError, TypeError, OSError, pa.ArrowException)

_UNLISTED_MAGIC = (b"BM", b"P1", b"P2", b"P3", b"P4", b"P5", b"P6")  # BMP and PPM
_DEEPEST = 32  # nested fields; real data have three or four


def image_in(cell: pa.Scalar, steps: Sequence[str]) -> tuple[pa.Buffer | None, str | None, bool]:
    """Return the bytes, Hugging Face's path beside them, and whether the bytes are text.

    The bytes are not copied. Raises one of VALUE_ERRORS.
    """
    cell = _inside(cell)
    for step in steps:
        if not cell.is_valid:
            return None, None, False
        if isinstance(cell, pa.StructScalar):
            cell = _inside(cell[step])
        elif int(step) < len(cell.values):
            cell = _inside(cell.values[int(step)])
        else:
            return None, None, False
    path = None
    if isinstance(cell, pa.StructScalar) and cell.is_valid:
        name = cell["path"].as_py() if "path" in cell else None
        path = name[:MAX_NAME_CHARS] if isinstance(name, str) else None
        cell = _inside(cell["bytes"])
    if not cell.is_valid:
        return None, path, False
    if is_list_type(cell.type):
        return _buffer_of_list(cell.values), path, False
    return cell.as_buffer(), path, holds_text(cell.type)


def _inside(cell: pa.Scalar) -> pa.Scalar:
    """Return the value of an extension or a dictionary."""
    while cell.is_valid and isinstance(cell, pa.ExtensionScalar | pa.DictionaryScalar):
        cell = cell.value
    return cell


def _buffer_of_list(values: pa.Array) -> pa.Buffer:
    if values.null_count:
        raise ValueError("some bytes of the image are null")
    return pa.py_buffer(values.to_numpy(zero_copy_only=False).tobytes())


def is_image(data: pa.Buffer) -> bool:
    """Return whether the bytes begin like an image, or like one in base64."""
    head = data[: min(data.size, 512)].to_pybytes()
    return (
        format_of(head[:HEAD_BYTES]) is not None
        or head.startswith(_UNLISTED_MAGIC)
        or is_base64_image(head)
    )


def image_bytes(data: pa.Buffer, *, is_text: bool) -> bytes:
    """Return the encoded image, decoded from base64 if necessary. Raises ValueError."""
    found: bytes = data.to_pybytes()
    if is_text or (format_of(found[:HEAD_BYTES]) is None and is_base64_image(found)):
        return decode_base64_image(found)
    return found


def key_text(value: object) -> str | None:
    """Return the key of a sample that a value is; None if it is none."""
    is_key = isinstance(value, str | int) and not isinstance(value, bool) and value != ""
    return str(value) if is_key else None


def json_value(value: Any, depth: int = 0) -> Any:
    """Return a value for JSON, with times in ISO format, and bytes, NaN and infinity as null.

    Raises ValueError for a value that is nested too deeply.
    """
    if depth > _DEEPEST:
        raise ValueError(f"a value is nested more than {_DEEPEST} levels deep")
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
