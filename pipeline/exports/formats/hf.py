"""A Hugging Face dataset folder: Parquet with typed features, which `load_dataset` loads alone."""

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pipeline.exports.example import BOX_NAMES, Example, carried_fields
from pipeline.exports.formats.protocol import Format, Setting, Writer
from pipeline.exports.parts import ParquetPart, Record
from pipeline.schema import BOX

_BOX = pa.struct([(name, BOX.field(name).type) for name in BOX_NAMES])
_ENTITY = pa.struct(
    [
        pa.field("phrase", pa.string()),
        pa.field("start", pa.int32()),
        pa.field("end", pa.int32()),
        pa.field("phrase_logprob", pa.float32()),
        pa.field("boxes", pa.list_(_BOX)),
    ]
)
_COLUMNS = pa.schema(
    [
        pa.field("key", pa.string()),
        pa.field("caption", pa.string()),
        pa.field("entities", pa.list_(_ENTITY)),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("task", pa.string()),
        pa.field("prompt", pa.string()),
        pa.field("finish_reason", pa.string()),
        pa.field("issues", pa.list_(pa.string())),
        pa.field("shard_id", pa.string()),
        pa.field("index", pa.int32()),
        pa.field("uri", pa.string()),
        pa.field("member", pa.string()),
        pa.field("image_offset", pa.int64()),
        pa.field("image_size", pa.int64()),
        pa.field("image_sha256", pa.string()),
        pa.field("metadata", pa.string()),
    ]
)
_IMAGE = pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
_TAKEN = (_IMAGE.name, *_COLUMNS.names)


def schema(*, has_image: bool, carried: Sequence[pa.Field] = ()) -> pa.Schema:
    """With the features in the metadata, where `datasets` looks for them."""
    own = [_IMAGE, *_COLUMNS] if has_image else list(_COLUMNS)
    columns = pa.schema([*own, *carried_fields(carried, _TAKEN)])
    features = {column.name: _feature(column.type) for column in columns}
    if has_image:
        features["image"] = {"_type": "Image"}
    info = {"info": {"features": {name: features[name] for name in columns.names}}}
    return columns.with_metadata({"huggingface": json.dumps(info)})


def _row(example: Example) -> Record:
    """All columns but `image`, which is there where the image is."""
    columns = {name: getattr(example, name) for name in _COLUMNS.names if name != "entities"}
    image = {"image": _image(example)} if example.image else {}
    carried = example.carried_columns(_TAKEN)
    return {**image, **columns, "entities": example.entity_records(), **carried}


def _image(example: Example) -> dict[str, Any]:
    assert example.image is not None
    return {"bytes": example.image.data, "path": example.image.name_for(example)}


def _feature(column: pa.DataType) -> Any:
    if pa.types.is_struct(column):
        return {field.name: _feature(field.type) for field in column}
    if pa.types.is_list(column):
        return [_feature(column.value_type)]  # a list is read by every version of `datasets`
    return {
        "dtype": {"float": "float32", "double": "float64"}.get(str(column), str(column)),
        "_type": "Value",
    }


def _open(setting: Setting) -> Writer:
    columns = schema(has_image=setting.options.images == "embed", carried=setting.carried)
    return setting.parts(lambda: ParquetPart(columns, lambda example: [_row(example)]))


FORMAT = Format(
    title="Hugging Face dataset",
    open=_open,
    folders=("data",),
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
