"""The choice of columns of an Arrow table: the image, the key, and the metadata.

An image is bytes of any Arrow type, Hugging Face's struct `{bytes, path}`, or base64 text. If
several columns could hold images, the one whose first values are images is chosen.
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa

from pipeline.errors import InputUnreadable
from pipeline.formats.table.arrow_types import (
    holds_bytes,
    holds_images,
    holds_several_images,
    holds_text,
    is_image_struct,
    is_list_type,
    storage_type,
)
from pipeline.formats.table.cells import VALUE_ERRORS, image_in, is_image

KEY_COLUMNS = ("__key__", "key", "id")
LOOK_ROWS = 1000  # of the first rows of a file, searched for a column's values
_ENOUGH_VALUES = 4  # of a column, to recognise them
_LIKELY = ("image", "jpg", "jpeg", "png", "webp", "img", "bytes")
_LIKELY_TEXT = (*_LIKELY, "image_base64", "image_b64", "base64", "b64", "image_bytes", "image_data")

FirstValues = Callable[[str], Iterable[pa.Scalar]]
"""Return the first values of a column, the same ones whenever the file is read."""


@dataclass(frozen=True, slots=True)
class ImageColumn:
    """A column and the path to the image, or its name, inside it.

    `images.0` is the first image of a list, `record.jpg` a field of a struct.
    """

    name: str
    steps: tuple[str, ...] = ()

    @classmethod
    def of_path(cls, path: str, names: Collection[str]) -> "ImageColumn | None":
        """Return what `path` leads to; of several columns that it begins with, the longest."""
        parts = path.split(".")
        for end in range(len(parts), 0, -1):
            if (name := ".".join(parts[:end])) in names:
                return cls(name, tuple(parts[end:]))
        return None

    @property
    def path(self) -> str:
        return ".".join((self.name, *self.steps))


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Columns of one file: the image's, the key's, and those that become metadata."""

    image: ImageColumn
    key: str | None
    others: tuple[str, ...]

    @property
    def read(self) -> list[str]:
        keys = () if self.key is None or self.key in self.others else (self.key,)
        return [self.image.name, *keys, *self.others]


def find_columns(schema: pa.Schema, asked: str | None, uri: str, look: FirstValues) -> Columns:
    """Determine the use of each column.

    `asked` names the image's column. `look` is called only if the types are not enough. Raises
    InputUnreadable, naming the columns.
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
            if field.name != image.name and not holds_bytes(field.type)
        ),
    )


def check_names(schema: pa.Schema, uri: str) -> None:
    """Raise InputUnreadable if two columns have the same name."""
    if len(set(schema.names)) < len(schema.names):
        twice = next(name for name in schema.names if schema.names.count(name) > 1)
        raise InputUnreadable(f"{uri} has two columns named {twice:.100}; rename one")


def image_column_of(schema: pa.Schema, asked: str | None, look: FirstValues) -> ImageColumn | None:
    """Return the column that holds the bytes of images; None if it cannot be determined."""
    if not asked:
        return _chosen(schema, look)
    column = column_of_path(schema, asked)
    kind = None if column is None else _type_of(schema, column)
    if column is None or kind is None:
        return None
    is_found = holds_images(kind) or (holds_text(kind) and _rank(column, kind, look) == _IMAGES)
    return column if is_found else None


def column_of_path(schema: pa.Schema, path: str) -> ImageColumn | None:
    """Return the column that `path` names: a column of exactly that name, or a value inside one."""
    column = ImageColumn.of_path(path, schema.names)
    return None if column is None or _type_of(schema, column) is None else column


def _type_of(schema: pa.Schema, column: ImageColumn) -> pa.DataType | None:
    index = schema.get_field_index(column.name)
    if index < 0:  # two columns have this name
        return None
    kind = storage_type(schema.field(index).type)
    for step in column.steps:
        if step.isdecimal() and is_list_type(kind):
            kind = storage_type(kind.value_type)
        elif pa.types.is_struct(kind) and kind.get_field_index(step) >= 0:
            kind = storage_type(kind.field(step).type)
        else:
            return None
    return kind


def _unknown(schema: pa.Schema, asked: str | None, uri: str) -> str:
    columns = ", ".join(f"{field.name} ({field.type})"[:80] for field in schema)
    found = column_of_path(schema, asked) if asked else None
    said = f"no images in the column {asked}." if asked else "no column could be chosen for images."
    if found is not None and holds_text(_type_of(schema, found)):
        said += (
            " Its texts are not images in base64; if they name images, use --input-format manifest."
        )
    several = [field.name for field in schema if holds_several_images(field.type)]
    name = asked if asked in several else next(iter(several), None)
    inside = f" (of several images in a row, the first one is {name}.0)" if name else ""
    return (
        f"{uri}: {said} The columns are {columns:.1000}; choose one of bytes or {{bytes, path}} "
        f"with --image-column{inside}"
    )


_EMPTY, _BYTES, _IMAGES = range(3)


def _chosen(schema: pa.Schema, look: FirstValues) -> ImageColumn | None:
    """Choose by the values of the first rows, or else by name.

    A column that `datasets` marks as an image comes first, then columns with likely names. Of the
    others, only one may hold images.
    """
    found, named = _candidates(schema)
    types = {field.name: field.type for field in schema}
    certain = [name for name in found if holds_bytes(types[name])]
    if len(found) == 1 and found == certain:
        return ImageColumn(found[0])
    ranks = dict[str, int]()
    for name in dict.fromkeys((*named, *found)):
        ranks[name] = _rank(ImageColumn(name), types[name], look)
        if name in named and ranks[name] == _IMAGES:
            return ImageColumn(name)
    for names in (
        [name for name in named if ranks[name] == _BYTES][:1],
        [name for name in found if name not in named and ranks[name] == _IMAGES],
        [name for name in named if holds_images(types[name])][:1],
        certain,
    ):
        if names:
            return ImageColumn(names[0]) if len(names) == 1 else None
    return None


def surely_holds_images(schema: pa.Schema, asked: str | None, look: FirstValues) -> bool:
    """Return whether a table holds images, even if it also has columns of names."""
    if asked:
        return image_column_of(schema, asked, look) is not None
    found, named = _candidates(schema)
    types = {field.name: field.type for field in schema}
    return (
        any(holds_images(types[name]) for name in named)
        or any(is_image_struct(types[name]) or holds_several_images(types[name]) for name in types)
        or any(_rank(ImageColumn(name), types[name], look) == _IMAGES for name in found)
    )


def _candidates(schema: pa.Schema) -> tuple[list[str], list[str]]:
    """Return columns that could hold images, and those with telling names, likeliest first.

    Text columns count only if their names are telling, or if there are no bytes.
    """
    types = {field.name: field.type for field in schema}
    features = _features(schema)
    texts = [name for name in types if holds_text(types[name])]
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
            if is_image(cell):
                return _IMAGES
            rank = _EMPTY if holds_text(kind) else _BYTES
    except VALUE_ERRORS:
        pass
    return rank


def _values(column: ImageColumn, look: FirstValues) -> Iterator[pa.Buffer]:
    for cell in islice(look(column.name), LOOK_ROWS):
        data, _, _ = image_in(cell, column.steps)
        if data is not None and data.size:
            yield data


def _features(schema: pa.Schema) -> Mapping[str, str]:
    """Return the kind of each column, from the metadata that `datasets` writes."""
    try:
        said = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: feature["_type"] for name, feature in said.items() if "_type" in feature}
    except (LookupError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
