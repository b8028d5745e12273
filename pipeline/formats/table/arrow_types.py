"""Predicates of Arrow types: may values be bytes, text, lists or images?"""

import pyarrow as pa

_LEAST_FIXED_BYTES = 64  # shorter fixed-size values are hashes and UUIDs


def holds_images(column: pa.DataType) -> bool:
    """Return whether values of a type can be the bytes of one image."""
    return _is_bytes(column) or is_image_struct(column)


def holds_bytes(kind: pa.DataType) -> bool:
    """Return whether values are bytes, which JSON metadata cannot hold."""
    kind = storage_type(kind)
    return _is_binary(kind) or is_image_struct(kind)


def is_image_struct(kind: pa.DataType) -> bool:
    """Return whether a type is Hugging Face's `{bytes, path}`, or a struct with such bytes."""
    kind = storage_type(kind)
    index = kind.get_field_index("bytes") if pa.types.is_struct(kind) else -1
    if index < 0:
        return False
    inside = kind.field(index).type
    return _is_bytes(inside) or (holds_text(inside) and kind.get_field_index("path") >= 0)


def holds_several_images(kind: pa.DataType) -> bool:
    """Return whether a value can be several images."""
    kind = storage_type(kind)
    return is_list_type(kind) and holds_images(kind.value_type)


def holds_text(kind: pa.DataType) -> bool:
    kind = storage_type(kind)
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def is_list_type(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    )


def storage_type(kind: pa.DataType) -> pa.DataType:
    """Return the type that stores an extension or a dictionary."""
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


def _is_bytes(kind: pa.DataType) -> bool:
    kind = storage_type(kind)
    if is_list_type(kind):
        return bool(pa.types.is_uint8(kind.value_type) or pa.types.is_int8(kind.value_type))
    return _is_binary(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or (pa.types.is_fixed_size_binary(kind) and kind.byte_width >= _LEAST_FIXED_BYTES)
    )
