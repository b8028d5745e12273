"""YOLO: a text file of boxes per image."""

import json
from collections.abc import Sequence

from pipeline.exports.categories import Categories
from pipeline.exports.example import Example
from pipeline.exports.formats.protocol import Format, Setting

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
        """Each image's files are there already."""


def labels(example: Example, categories: Categories) -> str:
    """`class x y width height` per box, the centre's x and y, all in 0..1; classes from 0 on."""
    lines = []
    for category_id, _, box in categories.classified(example):
        x, y = (box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2
        width, height = box.x2 - box.x1, box.y2 - box.y1
        lines.append(f"{category_id - 1} {x:.6f} {y:.6f} {width:.6f} {height:.6f}\n")
    return "".join(lines)


def data_yaml(names: Sequence[str], splits: list[str]) -> str:
    """Name the folders of `splits`, one at least, and the classes.

    Trainers want `train` and `val`, whatever the splits are called.
    """
    training = "train" if "train" in splits else splits[0]
    validation = next((name for name in _VALIDATION if name in splits), training)
    roles = {split: split for split in splits} | {"train": training, "val": validation}
    lines = [f"{role}: images/{split}" for role, split in roles.items()]
    lines += [
        "names:" if names else "names: {}",
        *(f"  {i}: {_quoted(name)}" for i, name in enumerate(names)),
    ]
    return "\n".join([*lines, ""])


def _quoted(text: str) -> str:
    """A JSON string is one of YAML, but for what YAML takes for a line break or refuses."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in quoted)


FORMAT = Format(
    title="YOLO",
    open=_Writer,
    folders=("images/{split}", "labels/{split}"),
    files=(_DATA_KEY,),
    common=lambda classes, coverage: {_DATA_KEY: data_yaml(classes, coverage.splits).encode()},
    embeds=True,
    has_classes=True,
    is_by_image=True,
    about=f"""\
`images/<split>/NAME.jpg`, `labels/<split>/NAME.txt` and `{_DATA_KEY}`. Only classes and boxes are
left: no captions, phrases or scores. Without a split of its own, `val` is the training split.

```sh
yolo detect train data=DEST/{_DATA_KEY}
```
""",
)
