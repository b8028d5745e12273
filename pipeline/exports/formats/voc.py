"""Pascal VOC: an XML file per image."""

from xml.etree import ElementTree

from kosmos2_core.annotation import Box
from pipeline.exports.categories import Categories
from pipeline.exports.example import Example
from pipeline.exports.formats.protocol import Format, Setting
from pipeline.exports.papers.records import ExportContents, RecordSet, file_fields

_IMAGES = "JPEGImages"
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class _Writer:
    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._names: dict[str, list[str]] = {split: [] for split in setting.options.shares}

    def add(self, example: Example) -> None:
        self._setting.write_image(example, _IMAGES)
        page = annotation(example, self._setting.categories)
        self._setting.destination.write(f"Annotations/{example.name}.xml", page)
        self._names[example.split].append(example.name)

    def close(self) -> None:
        for split, names in self._names.items():
            page = "".join(f"{name}\n" for name in names)
            self._setting.destination.write(f"ImageSets/Main/{split}.txt", page.encode())


def annotation(example: Example, categories: Categories) -> bytes:
    """Return the XML file; boxes are in whole pixels that count from 1, both corners included."""
    root = ElementTree.Element("annotation")
    _add(root, "folder", _IMAGES)
    _add(root, "filename", _printable(example.image_name))
    size = ElementTree.SubElement(root, "size")
    for side, length in (("width", example.width), ("height", example.height), ("depth", 3)):
        _add(size, side, str(length))
    _add(root, "segmented", "0")
    for category_id, entity, box in categories.classified(example):
        found = ElementTree.SubElement(root, "object")
        _add(found, "name", _printable(categories.name_of(category_id)))
        _add(found, "phrase", _printable(entity.phrase))
        for tag, value in (("pose", "Unspecified"), ("truncated", "0"), ("difficult", "0")):
            _add(found, tag, value)
        corners = ElementTree.SubElement(found, "bndbox")
        for corner, pixel in zip(_CORNERS, pixels(example, box), strict=True):
            _add(corners, corner, str(pixel))
    ElementTree.indent(root)
    page: bytes = ElementTree.tostring(root, encoding="utf-8")
    return page


def pixels(example: Example, box: Box) -> tuple[int, int, int, int]:
    """Return the first and last pixel column and row, from 1; at least one of each."""
    x1, y1, x2, y2 = example.pixels(box)
    left, top = min(round(x1), example.width - 1), min(round(y1), example.height - 1)
    return left + 1, top + 1, max(round(x2), left + 1), max(round(y2), top + 1)


def _add(parent: ElementTree.Element, tag: str, text: str) -> None:
    ElementTree.SubElement(parent, tag).text = text


def _printable(text: str) -> str:
    """Replace control characters, which XML 1.0 cannot hold even escaped."""
    return "".join(c if c >= " " and c not in "\ufffe\uffff" else " " for c in text)


def _records(contents: ExportContents) -> list[RecordSet]:
    annotations = RecordSet(
        name="annotations",
        about="A file per image: its size, and its boxes in whole pixels.",
        files="Annotations/*.xml",
        encodings=("application/xml", "text/plain"),
        fields=file_fields("annotation"),
    )
    return [annotations, *contents.pixels(f"{_IMAGES}/*")]


FORMAT = Format(
    title="Pascal VOC",
    open=_Writer,
    folders=("Annotations", _IMAGES, "ImageSets/Main"),
    records=_records,
    embeds=True,
    has_classes=True,
    is_by_image=True,
    can_be_parallel=False,
    about="""\
`Annotations/NAME.xml`, `JPEGImages/NAME.jpg` and `ImageSets/Main/<split>.txt`. Boxes are whole
pixels from 1 on; `phrase` follows `name`. Left out: captions, spans, scores, phrases without
a box.

```python
supervision.DetectionDataset.from_pascal_voc("DEST/JPEGImages", "DEST/Annotations")
```
""",
)
