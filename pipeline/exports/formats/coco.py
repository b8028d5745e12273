"""COCO detection JSON: annotations, and the same boxes as results with scores."""

from collections.abc import Iterator
from itertools import count
from typing import Any

from pipeline.exports.categories import Categories
from pipeline.exports.example import Example
from pipeline.exports.formats.protocol import Format, ImagesBeside, Setting, Writer
from pipeline.exports.options import ExportOptions
from pipeline.exports.papers.credits import coco_credits
from pipeline.exports.papers.records import ExportContents, RecordSet, json_fields
from pipeline.exports.parts import Record, json_array, json_text


class CocoPart:
    """A pair of COCO files.

    Annotation ids continue from part to part; image ids come from the plan.
    """

    def __init__(self, categories: Categories, ids: Iterator[int], options: ExportOptions) -> None:
        self._categories = categories
        self._options = options
        self._ids = ids
        self._images: list[str] = []
        self._annotations: list[str] = []
        self._results: list[str] = []
        self.size_bytes = 0

    def add(self, example: Example) -> None:
        self._images.append(json_text(image(example)))
        self.size_bytes += len(self._images[-1])
        for annotation in annotations(example, self._categories):
            self._annotations.append(json_text({"id": next(self._ids), **annotation}))
            self.size_bytes += len(self._annotations[-1])
            if annotation["score"] is not None:
                self._results.append(json_text({name: annotation[name] for name in _RESULT}))

    def finish(self) -> dict[str, bytes]:
        categories = [
            {"id": i, "name": name, "supercategory": "object"}
            for i, name in enumerate(self._categories.names, start=1)
        ]
        credit = coco_credits(self._options.license, self._options.creator)
        content = (
            f'{{"info":{json_text({**_INFO, **credit["info"]})},'
            f'\n"licenses":{json_text(credit["licenses"])},'
            f'\n"categories":{json_text(categories)},'
            f'\n"images":{json_array(self._images)},'
            f'\n"annotations":{json_array(self._annotations)}}}\n'
        )
        files = {_FOLDER + "/{part}.json": content.encode()}
        if self._results:  # pycocotools fails on an empty list
            files["results/{part}.json"] = json_array(self._results).encode()
        return files


_FOLDER = "annotations"
_INFO = {"description": "Grounded captions of Kosmos-2, exported by kosmos2-annotate"}
_RESULT = ("image_id", "category_id", "bbox", "score")


def image(example: Example) -> Record:
    return {
        "id": example.image_id,
        "file_name": example.image_name,
        "width": example.width,
        "height": example.height,
        "caption": example.caption,
        "key": example.key,
        "task": example.task,
        "uri": example.uri,
        "member": example.member,
        "image_offset": example.image_offset,
        "image_size": example.image_size,
    }


def annotations(example: Example, categories: Categories) -> list[Record]:
    """Return one record per box, without its id; leave out boxes whose phrase has no category."""
    return [
        {
            "image_id": example.image_id,
            "category_id": category_id,
            **_shape(example.pixels(box)),
            "phrase": entity.phrase,
            "tokens_positive": [[entity.start, entity.end]],
            "score": box.score,
            "source": box.source,
        }
        for category_id, entity, box in categories.classified(example)
    ]


def _shape(corners: tuple[float, float, float, float]) -> dict[str, Any]:
    x1, y1, x2, y2 = corners
    width, height = round(x2 - x1, 2), round(y2 - y1, 2)
    return {"bbox": [x1, y1, width, height], "area": round(width * height, 2), "iscrowd": 0}


def _records(contents: ExportContents) -> list[RecordSet]:
    images = json_fields(
        "$.images[*]",
        **{"id": int, "file_name": str, "width": int, "height": int},
        **{"caption": str, "key": str, "task": str, "uri": str},
    )
    boxes = json_fields(
        "$.annotations[*]",
        **{"id": int, "image_id": int, "category_id": int},
        **{"bbox": list, "area": float, "phrase": str, "score": float, "source": str},
    )
    described = (("images", "Images.", images), ("annotations", "Boxes, as xywh in pixels.", boxes))
    return [
        *(
            RecordSet(name=name, about=about, files=f"{_FOLDER}/*.json", fields=fields)
            for name, about, fields in described
        ),
        *contents.pixels("images/*"),
    ]


def _open(setting: Setting) -> Writer:
    ids = count(setting.first_id)  # pycocotools never matches an annotation with id 0
    parts = setting.parts(lambda: CocoPart(setting.categories, ids, setting.options))
    return ImagesBeside(setting, parts)


FORMAT = Format(
    title="COCO detection",
    open=_open,
    folders=(_FOLDER, "results", "images"),
    records=_records,
    has_classes=True,
    is_by_image=True,
    about="""\
`annotations/*.json` hold images, boxes as xywh in pixels and categories; ids are the same in every
file, so files can be read one by one or joined. `results/*.json` hold the same boxes in COCO's
results format with their scores (boxes of the prompt have none); if no box has a score there is no
such file, since pycocotools loads no empty one. The phrase, the caption and
`tokens_positive` (its character span) are kept. Embedded images are in `images/`; otherwise
`file_name` is the path from the folder of all inputs, and `uri`, `image_offset` and `image_size`
lead to the bytes. Left out: phrases without a box, log-probabilities, the sample's own fields.

```python
from pycocotools.coco import COCO

truth = COCO("DEST/annotations/train-00000.json")
results = truth.loadRes("DEST/results/train-00000.json")
```
""",
)
