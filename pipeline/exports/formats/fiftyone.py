"""FiftyOne image detection datasets: a file of labels beside the images."""

from typing import Any

from kosmos2_core.annotation import Box, Entity
from pipeline.errors import SpecError
from pipeline.exports.categories import OBJECT, Categories
from pipeline.exports.example import Example, entity_values
from pipeline.exports.formats.protocol import Format, ImagesBeside, Setting, Writer
from pipeline.exports.papers.records import ExportContents, RecordSet, json_fields
from pipeline.exports.parts import Record, json_text
from pipeline.storage.objects import Location

_IMAGES = "data"
# Such a dataset has no fields for a whole image. Each box repeats the first ones; `samples`, which
# FiftyOne's importer ignores, has all of them, even for images without a box.
_ON_BOXES = ("task", "caption", "issues")
_OF_SAMPLES = (
    *(*_ON_BOXES, "key", "width", "height"),
    *("uri", "member", "image_offset", "image_size"),
)


class LabelsPart:
    """A file of labels, and for images that are only referenced a file of their paths."""

    def __init__(self, categories: Categories | None) -> None:
        self._categories = categories
        self._labels: list[str] = []
        self._samples: list[str] = []
        self._paths: list[str] = []
        self.size_bytes = 0

    def add(self, example: Example) -> None:
        self._add(self._labels, example, detections(example, self._categories))
        self._add(self._samples, example, {name: getattr(example, name) for name in _OF_SAMPLES})
        if example.image is None:
            self._add(self._paths, example, image_path(example))

    def finish(self) -> dict[str, bytes]:
        content = {"labels": _json_object(self._labels), "samples": _json_object(self._samples)}
        if self._categories is not None:
            content = {"classes": json_text(self._categories.names), **content}
        text = ",\n".join(f"{json_text(name)}:{value}" for name, value in content.items())
        files = {"labels/{part}.json": f"{{{text}}}\n".encode()}
        if self._paths:
            files[f"{_IMAGES}/{{part}}.json"] = _json_object(self._paths).encode()
        return files

    def _add(self, texts: list[str], example: Example, value: object) -> None:
        texts.append(f"{json_text(example.name)}:{json_text(value)}")
        self.size_bytes += len(texts[-1])


def detections(example: Example, categories: Categories | None) -> list[Record]:
    """Return one record per box.

    `label` is the phrase; with `categories` it is the position of the class, from 0 on.
    """
    if categories is None:
        return [_detection(example, entity, box, entity.phrase) for entity, box in example.boxes]
    return [
        _detection(example, entity, box, category_id - 1)
        for category_id, entity, box in categories.classified(example)
    ]


def _detection(example: Example, entity: Entity, box: Box, label: str | int) -> Record:
    """Return a record; `bounding_box` is xywh in 0..1, from the top left."""
    attributes: dict[str, Any] = {
        **entity_values(entity),
        "logp": box.logp,
        "consistency": box.consistency,
        "source": box.source,
        **{name: getattr(example, name) for name in _ON_BOXES},
    }
    confidence = {} if box.score is None else {"confidence": box.score}
    return {
        "label": label,
        "bounding_box": [box.x1, box.y1, box.x2 - box.x1, box.y2 - box.y1],
        **confidence,
        "attributes": attributes,
    }


def image_path(example: Example) -> str:
    """Return the path of the sample's file. Raises SpecError if FiftyOne cannot open it."""
    place = Location.of(example.uri)
    if place.scheme != "file" or example.member is not None or example.image_offset != 0:
        raise SpecError(
            f"{example.uri} (sample {example.key!r}) cannot be referenced: FiftyOne opens only "
            "local files that hold one image; export with --images embed"
        )
    return place.path


def _json_object(members: list[str]) -> str:
    return "{" + ",\n".join(members) + "}"


def _open(setting: Setting) -> Writer:
    categories = None if setting.options.categories == OBJECT else setting.categories
    parts = setting.parts(lambda: LabelsPart(categories))
    return ImagesBeside(setting, parts, folder=_IMAGES)


def _records(contents: ExportContents) -> list[RecordSet]:
    fields = json_fields(
        "$.samples.*",
        **{"task": str, "caption": str, "key": str, "width": int, "height": int, "uri": str},
    )
    samples = RecordSet(
        name="samples",
        about="Images with their captions. `labels` of the same files have the boxes of each.",
        files="labels/*.json",
        fields=fields,
    )
    return [samples, *contents.pixels(f"{_IMAGES}/*")]


FORMAT = Format(
    title="FiftyOne",
    open=_open,
    folders=("labels", _IMAGES),
    records=_records,
    embeds=True,
    has_classes=True,
    about="""\
`labels/*.json` are FiftyOne image detection datasets: boxes as xywh in 0..1, the score as
`confidence`, and as attributes the phrase, its span, the caption, `issues` and more. A box's label
is its phrase; with `--categories` it is the class. Embedded images are in `data/`. Fields of
whole images are in `samples`, which FiftyOne's importer ignores: the code below adds them, also of
images without a box. Left out: phrases without a box, patch indices, the sample's own fields.

To load one file, and all of them with their splits as tags:

```python
import json, os
import fiftyone as fo

HERE = {
    "dataset_dir": "DEST",
    "dataset_type": fo.types.FiftyOneImageDetectionDataset,
    "label_field": "predictions",
    "dynamic": True,
}
one = fo.Dataset.from_dir(**HERE, labels_path="labels/train-00000.json")

whole = fo.Dataset()
for name in sorted(os.listdir("DEST/labels")):
    ids = whole.add_dir(**HERE, labels_path=f"labels/{name}", tags=name.split("-")[0])
    with open(f"DEST/labels/{name}") as file:
        samples = json.load(file)["samples"]
    for field in ("caption", "issues", "task", "key", "uri"):
        values = {i: samples[own][field] for i, own in zip(ids, sorted(samples))}
        whole.set_values(field, values, key_field="id")
```

With `--images reference`, each file of labels has a file of paths: add `data_path=f"data/{name}"`.
""",
)
