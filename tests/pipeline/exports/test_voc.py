"""Pascal VOC, read by supervision."""

from pathlib import Path
from xml.etree import ElementTree

from tests.support.export_contract import (
    Boxes,
    ExportContract,
    of_detections,
    place_of,
    supervision,
)
from tests.support.export_dataset import SAID, size


class TestVoc(ExportContract):
    name = "voc"
    pixels = 1  # whole ones
    has_phrases = False
    has_scores = False

    def read(self, folder: Path) -> Boxes:
        found = supervision().DetectionDataset.from_pascal_voc(
            str(folder / "JPEGImages"), str(folder / "Annotations")
        )
        return of_detections(found)

    def test_sets_and_phrases_are_there(self, folder: Path) -> None:
        names = (folder / "ImageSets" / "Main" / "train.txt").read_text().split()
        assert [place_of(name) for name in names] == list(SAID)
        page = ElementTree.parse(folder / "Annotations" / f"{names[1]}.xml")
        assert page.findtext("object/phrase") == "𠜎 the sign"
        corners = page.find("object/bndbox")
        assert corners is not None
        assert [int(corner.text or "") for corner in corners] == [1, 1, *size(("a", 2))]
