"""The Hugging Face dataset folder, loaded by `datasets`."""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

from pipeline.dataset.dataset import StoredDataset
from pipeline.exports.example import split_of
from pipeline.exports.options import ExportOptions
from tests.support.export_contract import Boxes, ExportContract, Found, assert_upright
from tests.support.export_dataset import PHOTOS, exported, size


class TestHuggingFace(ExportContract):
    name = "hf"
    options: ClassVar = {"images": "embed"}

    def read(self, folder: Path) -> Boxes:
        return {
            (row["shard_id"][0], row["index"]): [
                Found(
                    box=tuple(box[corner] for corner in ("x1", "y1", "x2", "y2")),
                    phrase=row["caption"][entity["start"] : entity["end"]],
                    score=box["score"],
                )
                for entity in row["entities"]
                for box in entity["boxes"]
            ]
            for row in self.load(folder)["train"]
        }

    def load(self, folder: Path) -> Any:
        import datasets

        return datasets.load_dataset(str(folder), cache_dir=str(folder) + "-cache")

    def test_features_are_typed_and_images_upright(self, folder: Path) -> None:
        rows = self.load(folder)["train"]
        assert str(rows.features["image"]).startswith("Image")
        assert str(rows.features["entities"]).count("List(") == 2
        assert rows.features["width"].dtype == "int32"
        for row in rows:
            place = (row["shard_id"][0], row["index"])
            assert row["image"].size == size(place) == (row["width"], row["height"])
            assert_upright(row["image"], place)
        assert rows[1]["issues"] == ["truncated"]
        assert json.loads(rows[0]["metadata"])["name"] == "𝒜"

    def test_splits_are_those_of_the_card(self, job: StoredDataset, tmp_path: Path) -> None:
        exported(job, tmp_path, "hf", split=("train=1", "test=1", "none=0.0001"), task=())
        found = self.load(tmp_path)
        assert {name: found[name].num_rows for name in found} == split_sizes()
        assert found.keys() == {"train", "test"}  # datasets cannot load an empty split
        assert "image" not in found["train"].features


def split_sizes() -> dict[str, int]:
    """Two annotations per image."""
    shares = ExportOptions(format="hf", split=("train=1", "test=1", "none=0.0001")).shares
    found = Counter(split_of(hashlib.sha256(data).digest(), shares) for data in PHOTOS.values())
    return {name: 2 * count for name, count in found.items()}
