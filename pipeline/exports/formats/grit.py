"""The ten columns of GrIT, as in zzliang/GRIT."""

import math

import pyarrow as pa

from pipeline.exports.example import Example
from pipeline.exports.formats.protocol import Format
from pipeline.exports.papers.records import table_records
from pipeline.exports.parts import ParquetPart, Record

_VECTORS = pa.list_(pa.list_(pa.float64()))
_SCORE_NOTE = (
    "the 7th number of a vector is Kosmos-2's own score of the box, uncalibrated; in GrIT it is "
    "GLIP's confidence, so GrIT's threshold of 0.65 does not carry over"
)
_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string()),
        pa.field("clip_similarity_vitb32", pa.float64()),
        pa.field("clip_similarity_vitl14", pa.float64()),
        pa.field("id", pa.int64()),
        pa.field("url", pa.string()),
        pa.field("caption", pa.string()),
        pa.field("width", pa.int64()),
        pa.field("height", pa.int64()),
        pa.field("noun_chunks", _VECTORS),
        pa.field("ref_exps", _VECTORS),
    ],
    metadata={"kosmos2.score": _SCORE_NOTE},
)
_CARRIED = ("clip_similarity_vitb32", "clip_similarity_vitl14")


def _rows(example: Example) -> list[Record]:
    """Return one row; `clip_similarity_*` are the sample's own fields, null if it has none."""
    carried = example.carried()
    vectors = [
        # NaN passes no threshold. A null would break readers that expect seven numbers.
        [
            float(entity.start),
            float(entity.end),
            *box.xyxy,
            math.nan if box.score is None else box.score,
        ]
        for entity, box in example.boxes
    ]
    row = {
        "key": example.key,
        **{name: _similarity(carried.get(name)) for name in _CARRIED},
        "id": example.image_id,
        "url": example.url(),
        "caption": example.caption,
        "width": example.width,
        "height": example.height,
        "noun_chunks": vectors,
        "ref_exps": vectors,
    }
    return [row]


def _similarity(value: object) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    try:
        return float(value) if is_number else None  # type: ignore[arg-type]
    except OverflowError:  # JSON may hold integers of any length
        return None


FORMAT = Format(
    title="GrIT",
    open=lambda setting: setting.parts(lambda: ParquetPart(_SCHEMA, _rows)),
    folders=("data",),
    records=lambda _: [table_records("One row per image and task.", _SCHEMA)],
    can_embed=False,
    about=f"""\
The ten columns of zzliang/GRIT. `noun_chunks` has one `[start, end, x1, y1, x2, y2, score]` per
box; `ref_exps` is the same, since no parser expands the phrases. `url` is the sample's own field
of that name, else the file that holds the image; `id` is made from the plan.
Note: {_SCORE_NOTE}. A box that was given in the prompt has NaN there. Left out: phrases without a
box, log-probabilities, issues, the sample's other fields, images.

```python
datasets.load_dataset("parquet", data_files="DEST/data/*.parquet")
```
""",
)
