"""Flat Parquet: one row per box."""

import pyarrow as pa

from pipeline.exports.example import BOX_NAMES, Example, carried_fields
from pipeline.exports.formats.protocol import Format, Setting, Writer
from pipeline.exports.parts import ParquetPart, Record
from pipeline.schema import BOX

_PIXELS = ("x1_px", "y1_px", "x2_px", "y2_px")
_OF_THE_IMAGE = (
    pa.field("shard_id", pa.string()),
    pa.field("index", pa.int32()),
    pa.field("task", pa.string()),
    pa.field("image_id", pa.int64()),
    pa.field("split", pa.string()),
    pa.field("key", pa.string()),
    pa.field("uri", pa.string()),
    pa.field("member", pa.string()),
    pa.field("image_offset", pa.int64()),
    pa.field("image_size", pa.int64()),
    pa.field("width", pa.int32()),
    pa.field("height", pa.int32()),
    pa.field("caption", pa.string()),
    pa.field("issues", pa.list_(pa.string())),
)
_SCHEMA = pa.schema(
    [
        *_OF_THE_IMAGE,
        pa.field("entity", pa.int32()),  # its place among the entities, and the box's among its own
        pa.field("box", pa.int32()),
        pa.field("phrase", pa.string()),
        pa.field("start", pa.int32()),
        pa.field("end", pa.int32()),
        pa.field("phrase_logprob", pa.float32()),
        *(pa.field(name, BOX.field(name).type) for name in BOX_NAMES),
        *(pa.field(name, pa.float32()) for name in _PIXELS),
    ]
)


def rows(example: Example) -> list[Record]:
    image = {field.name: getattr(example, field.name) for field in _OF_THE_IMAGE}
    carried = example.carried_columns(_SCHEMA.names)
    return [
        {
            **image,
            "entity": i,
            "box": j,
            "phrase": entity.phrase,
            "start": entity.start,
            "end": entity.end,
            "phrase_logprob": entity.phrase_logprob,
            **{name: getattr(box, name) for name in BOX_NAMES},
            **dict(zip(_PIXELS, example.pixels(box), strict=True)),
            **carried,
        }
        for i, entity in enumerate(example.entities)
        for j, box in enumerate(entity.boxes)
    ]


def _open(setting: Setting) -> Writer:
    schema = pa.schema([*_SCHEMA, *carried_fields(setting.carried, _SCHEMA.names)])
    return setting.parts(lambda: ParquetPart(schema, rows))


FORMAT = Format(
    title="Flat table of boxes",
    open=_open,
    folders=("data",),
    can_embed=False,
    about="""\
One row per box: `x1 y1 x2 y2` in 0..1 from the top left of the upright picture, `x1_px` and so on
in its pixels; fields of `--carry` are columns. Left out: captions and phrases without a box, the
sample's other fields, pictures.

```python
duckdb.sql("SELECT phrase, x1_px, y1_px, x2_px, y2_px, score FROM 'DEST/data/*.parquet'")
```
""",
)
