"""A Hugging Face dataset folder: Parquet with typed features, which `load_dataset` reads."""

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pipeline.exports.example import (
    BOX_NAMES,
    ENTITY_NAMES,
    Example,
    carried_fields,
    example_fields,
)
from pipeline.exports.formats.protocol import Format, Setting, Writer
from pipeline.exports.papers.records import ExportContents, RecordSet, table_records
from pipeline.exports.parts import ParquetPart, Record
from pipeline.schema import BOX, ENTITY

_BOX = pa.struct([(name, BOX.field(name).type) for name in BOX_NAMES])
ENTITY_RECORD = pa.struct(
    [*((name, ENTITY.field(name).type) for name in ENTITY_NAMES), ("boxes", pa.list_(_BOX))]
)
_OTHERS = (
    *("width", "height", "task", "prompt", "finish_reason", "issues", "shard_id", "index"),
    *("uri", "member", "image_offset", "image_size", "image_sha256", "metadata"),
)
_COLUMNS = pa.schema(
    [
        *example_fields(("key", "caption")),
        pa.field("entities", pa.list_(ENTITY_RECORD)),
        *example_fields(_OTHERS),
    ]
)
_IMAGE = pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
_TAKEN = (_IMAGE.name, *_COLUMNS.names)


def schema(*, has_image: bool, carried: Sequence[pa.Field] = ()) -> pa.Schema:
    """Return the columns. Their metadata hold the features, where `datasets` reads them."""
    own = [_IMAGE, *_COLUMNS] if has_image else list(_COLUMNS)
    columns = pa.schema([*own, *carried_fields(carried, _TAKEN)])
    features = {column.name: _feature(column.type) for column in columns}
    if has_image:
        features["image"] = {"_type": "Image"}
    info = {"info": {"features": {name: features[name] for name in columns.names}}}
    return columns.with_metadata({"huggingface": json.dumps(info)})


def _rows(example: Example) -> list[Record]:
    """Return one row with all columns; it has `image` if images are embedded."""
    row = {name: getattr(example, name) for name in _COLUMNS.names if name != "entities"}
    row |= {"entities": example.entity_records(), **example.carried_columns(_TAKEN)}
    if example.image is not None:
        row["image"] = {"bytes": example.image.data, "path": example.image_name}
    return [row]


def _feature(column: pa.DataType) -> Any:
    if pa.types.is_struct(column):
        return {field.name: _feature(field.type) for field in column}
    if pa.types.is_list(column):
        return [_feature(column.value_type)]  # every version of `datasets` reads a list
    return {
        "dtype": {"float": "float32", "double": "float64"}.get(str(column), str(column)),
        "_type": "Value",
    }


def _records(contents: ExportContents) -> list[RecordSet]:
    has_image = contents.options.images == "embed"
    return [
        table_records(
            "One row per image and task. Each of the `entities` also has a list of `boxes`.",
            schema(has_image=has_image, carried=contents.carried),
        )
    ]


def _open(setting: Setting) -> Writer:
    columns = schema(has_image=setting.options.images == "embed", carried=setting.carried)
    return setting.parts(lambda: ParquetPart(columns, _rows))


FORMAT = Format(
    title="Hugging Face dataset",
    open=_open,
    folders=("data",),
    records=_records,
    about="""\
One row per image and task. `entities` holds the phrases of `caption` with their character spans
and boxes; fields of `--carry` are columns. Left out: patch indices, token ids and their
log-probabilities.

```python
from datasets import load_dataset

dataset = load_dataset("DEST")
```
""",
)
