"""Flat Parquet: one row per box."""

from collections.abc import Sequence

import pyarrow as pa

from pipeline.exports.example import (
    BOX_NAMES,
    ENTITY_NAMES,
    Example,
    box_values,
    carried_fields,
    entity_values,
    example_fields,
)
from pipeline.exports.formats.protocol import Format, Setting, Writer
from pipeline.exports.papers.records import ExportContents, RecordSet, table_records
from pipeline.exports.parts import ParquetPart, Record
from pipeline.schema import BOX, ENTITY

_PIXELS = ("x1_px", "y1_px", "x2_px", "y2_px")
_OF_THE_IMAGE = (
    *("shard_id", "index", "task", "image_id", "split", "key", "uri", "member"),
    *("image_offset", "image_size", "width", "height", "caption", "issues"),
)
_SCHEMA = pa.schema(
    [
        *example_fields(_OF_THE_IMAGE),
        # position of the entity in its annotation, and of the box in its entity
        pa.field("entity", pa.int32()),
        pa.field("box", pa.int32()),
        *(pa.field(name, ENTITY.field(name).type) for name in ENTITY_NAMES),
        *(pa.field(name, BOX.field(name).type) for name in BOX_NAMES),
        *(pa.field(name, pa.float32()) for name in _PIXELS),
    ]
)


def rows(example: Example) -> list[Record]:
    image = {name: getattr(example, name) for name in _OF_THE_IMAGE}
    carried = example.carried_columns(_SCHEMA.names)
    return [
        {
            **image,
            "entity": i,
            "box": j,
            **entity_values(entity),
            **box_values(box),
            **dict(zip(_PIXELS, example.pixels(box), strict=True)),
            **carried,
        }
        for i, entity in enumerate(example.entities)
        for j, box in enumerate(entity.boxes)
    ]


def _schema(carried: Sequence[pa.Field]) -> pa.Schema:
    return pa.schema([*_SCHEMA, *carried_fields(carried, _SCHEMA.names)])


def _records(contents: ExportContents) -> list[RecordSet]:
    return [table_records("One row per box.", _schema(contents.carried))]


def _open(setting: Setting) -> Writer:
    schema = _schema(setting.carried)
    return setting.parts(lambda: ParquetPart(schema, rows))


FORMAT = Format(
    title="Flat table of boxes",
    open=_open,
    folders=("data",),
    records=_records,
    can_embed=False,
    about="""\
One row per box: `x1 y1 x2 y2` in 0..1 from the top left of the upright image, `x1_px` and so on
in its pixels; fields of `--carry` are columns. Left out: captions and phrases without a box, the
sample's other fields, images.

```python
duckdb.sql("SELECT phrase, x1_px, y1_px, x2_px, y2_px, score FROM 'DEST/data/*.parquet'")
```
""",
)
