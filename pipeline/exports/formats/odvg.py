"""ODVG JSON Lines, which grounding detectors such as Grounding DINO train on."""

from pipeline.exports.example import Example
from pipeline.exports.formats.protocol import Format, ImagesBeside, Setting, Writer
from pipeline.exports.papers.records import ExportContents, RecordField, RecordSet
from pipeline.exports.parts import JsonPart, Record


def _record(example: Example) -> Record:
    """Return a line with one region per box; boxes are xyxy in pixels."""
    regions = [
        {
            "bbox": list(example.pixels(box)),
            "phrase": entity.phrase,
            "tokens_positive": [[entity.start, entity.end]],
        }
        for entity, box in example.boxes
    ]
    return {
        "filename": example.image_name,
        "height": example.height,
        "width": example.width,
        "grounding": {"caption": example.caption, "regions": regions},
    }


def _records(contents: ExportContents) -> list[RecordSet]:
    fields = (
        RecordField(name="filename", type="sc:Text", column="filename"),
        RecordField(name="height", type="cr:Int64", column="height"),
        RecordField(name="width", type="cr:Int64", column="width"),
        RecordField(name="caption", type="sc:Text", column="grounding", path="caption"),
    )
    lines = RecordSet(
        name="lines",
        about="One line per image and task. `grounding` also has a list of `regions`.",
        files="data/*.jsonl",
        encodings=("application/jsonlines",),
        fields=fields,
    )
    return [lines, *contents.pixels("images/*")]


def _open(setting: Setting) -> Writer:
    parts = setting.parts(lambda: JsonPart("data/{part}.jsonl", _record, is_lines=True))
    return ImagesBeside(setting, parts)


FORMAT = Format(
    title="ODVG JSON Lines",
    open=_open,
    folders=("data", "images"),
    records=_records,
    about="""\
One line per image and task: the caption, and per box a region with its phrase, its character span
(`tokens_positive`) and xyxy in pixels. With `--images embed`, `filename` is in `images/`; otherwise
it is the image's path from the folder of all inputs. Left out: scores, phrases without a box,
log-probabilities.

```python
[json.loads(line) for line in open("DEST/data/train-00000.jsonl")]
```
""",
)
