"""YOLO: a text file of boxes per image."""

from collections.abc import Sequence

from pipeline.exports.categories import Categories
from pipeline.exports.example import Example
from pipeline.exports.formats.protocol import Format, Setting
from pipeline.exports.papers.records import ExportContents, RecordSet, file_fields
from pipeline.exports.parts import yaml_text

_DATA_KEY = "data.yaml"
_VALIDATION = ("val", "validation", "test", "train")


class _Writer:
    def __init__(self, setting: Setting) -> None:
        self._setting = setting

    def add(self, example: Example) -> None:
        self._setting.write_image(example, f"images/{example.split}")
        name = f"labels/{example.split}/{example.name}.txt"
        self._setting.destination.write(name, labels(example, self._setting.categories).encode())

    def close(self) -> None:
        """Do nothing: each image's files are already written."""


def labels(example: Example, categories: Categories) -> str:
    """Return `class x y width height` per box.

    x and y are the centre's; all numbers are in 0..1. Classes count from 0.
    """
    lines = []
    for category_id, _, box in categories.classified(example):
        x, y = (box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2
        width, height = box.x2 - box.x1, box.y2 - box.y1
        lines.append(f"{category_id - 1} {x:.6f} {y:.6f} {width:.6f} {height:.6f}\n")
    return "".join(lines)


def data_yaml(names: Sequence[str], splits: list[str]) -> str:
    """Return the file that names the folders of `splits`, at least one, and the classes.

    Trainers need `train` and `val`, whatever the names of the splits are.
    """
    training = "train" if "train" in splits else splits[0]
    validation = next((name for name in _VALIDATION if name in splits), training)
    roles = {split: split for split in splits} | {"train": training, "val": validation}
    lines = [f"{role}: images/{split}" for role, split in roles.items()]
    lines += [
        "names:" if names else "names: {}",
        *(f"  {i}: {yaml_text(name)}" for i, name in enumerate(names)),
    ]
    return "\n".join([*lines, ""])


def _records(contents: ExportContents) -> list[RecordSet]:
    boxes = RecordSet(
        name="labels",
        about="A file per image, with a line per box: class, and xywh of its centre in 0..1.",
        files="labels/*/*.txt",
        encodings=("text/plain",),
        fields=file_fields("boxes"),
    )
    return [boxes, *contents.pixels("images/*/*")]


FORMAT = Format(
    title="YOLO",
    open=_Writer,
    folders=("images/{split}", "labels/{split}"),
    records=_records,
    files=(_DATA_KEY,),
    common=lambda classes, coverage: {_DATA_KEY: data_yaml(classes, coverage.splits).encode()},
    embeds=True,
    has_classes=True,
    is_by_image=True,
    about=f"""\
`images/<split>/NAME.jpg`, `labels/<split>/NAME.txt` and `{_DATA_KEY}`. Only classes and boxes
remain: no captions, phrases or scores. If no split is named `val`, `val` is the training split.

```sh
yolo detect train data=DEST/{_DATA_KEY}
```
""",
)
