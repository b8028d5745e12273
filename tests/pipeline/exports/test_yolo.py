"""YOLO, read by supervision."""

import json
from collections import Counter
from pathlib import Path

import yaml
from PIL import Image

from pipeline.dataset.dataset import StoredDataset
from tests.support.export_contract import (
    Boxes,
    ExportContract,
    assert_upright,
    of_detections,
    place_of,
    supervision,
)
from tests.support.export_dataset import exported


class TestYolo(ExportContract):
    name = "yolo"
    has_phrases = False
    has_scores = False

    def read(self, folder: Path) -> Boxes:
        found = supervision().DetectionDataset.from_yolo(
            str(folder / "images" / "train"),
            str(folder / "labels" / "train"),
            str(folder / "data.yaml"),
        )
        return of_detections(found)

    def test_images_are_upright_and_named_like_labels(self, folder: Path) -> None:
        names = {path.stem for path in (folder / "labels" / "train").iterdir()}
        for path in (folder / "images" / "train").iterdir():
            names.remove(path.stem)
            with Image.open(path) as image:
                assert_upright(image, place_of(path.name))
        assert not names

    def test_splits_and_classes_are_in_data_yaml(self, job: StoredDataset, tmp_path: Path) -> None:
        mapping = tmp_path / "classes.json"
        mapping.write_text(json.dumps({"A Cat 🐈": "cat: big", "two dogs": "yes 🐕"}))
        coverage = exported(
            job, tmp_path / "out", "yolo", split=("train=2", "val=1"), categories=str(mapping)
        )
        data = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())
        assert data["names"] == {0: "cat: big", 1: "yes 🐕"}
        assert (data["train"], data["val"]) == ("images/train", "images/val")
        assert coverage.boxes_without_class == 3
        rows = [
            line.split()[0]
            for path in (tmp_path / "out" / "labels").rglob("*.txt")
            for line in path.read_text().splitlines()
        ]
        assert Counter(rows) == {"0": 2, "1": 4}
