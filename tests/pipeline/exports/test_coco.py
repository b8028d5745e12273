"""COCO detection, read by pycocotools and supervision."""

import json
from pathlib import Path
from typing import ClassVar

import pytest
from PIL import Image

from pipeline.dataset.dataset import StoredDataset
from tests.support.export_contract import (
    Boxes,
    ExportContract,
    Found,
    assert_upright,
    of_pixels,
    place_of_id,
    supervision,
    xyxy,
)
from tests.support.export_dataset import PHOTOS, exported


class TestCoco(ExportContract):
    name = "coco"
    options: ClassVar = {"images": "embed"}

    def read(self, folder: Path) -> Boxes:
        from pycocotools.coco import COCO

        truth = COCO(folder / "annotations" / "train-00000.json")
        return {
            place_of_id(number): [
                Found(
                    box=of_pixels(xyxy(*a["bbox"]), place_of_id(number)),
                    phrase=a["phrase"],
                    score=a["score"],
                )
                for a in truth.loadAnns(truth.getAnnIds(imgIds=[number]))
            ]
            for number in truth.getImgIds()
        }

    def test_phrases_are_at_their_tokens(self, folder: Path) -> None:
        found = json.loads((folder / "annotations" / "train-00000.json").read_text())
        captions = {image["id"]: image["caption"] for image in found["images"]}
        assert captions[1] == "a cat 🐈 and two dogs."
        for annotation in found["annotations"]:
            [[start, end]] = annotation["tokens_positive"]
            assert captions[annotation["image_id"]][start:end] == annotation["phrase"]
        assert [a["id"] for a in found["annotations"]] == list(range(1, 10))
        assert found["categories"] == [{"id": 1, "name": "object", "supercategory": "object"}]

    def test_images_are_those_of_the_ids(self, folder: Path) -> None:
        found = json.loads((folder / "annotations" / "train-00000.json").read_text())
        for image in found["images"]:
            with Image.open(folder / "images" / image["file_name"]) as opened:
                assert opened.size == (image["width"], image["height"])
                assert_upright(opened, place_of_id(image["id"]))

    def test_results_are_the_same_boxes_and_score_a_perfect_ap(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """But for the box of the prompt, which is no result."""
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        truth = COCO(folder / "annotations" / "train-00000.json")
        results = truth.loadRes(str(folder / "results" / "train-00000.json"))
        assert len(results.anns) == len(truth.anns) - 1
        evaluation = COCOeval(truth, results, "bbox")
        evaluation.params.imgIds = [1, 3, 2**31 + 2]  # those without such a box
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        assert evaluation.stats[0] == pytest.approx(1)

    def test_supervision_reads_it_too(self, folder: Path) -> None:
        found = supervision().DetectionDataset.from_coco(
            str(folder / "images"), str(folder / "annotations" / "train-00000.json")
        )
        assert sorted(len(detections) for _, _, detections in found) == [0, 1, 2, 3, 3]

    def test_files_are_split_by_images_and_share_their_ids(
        self, job: StoredDataset, tmp_path: Path
    ) -> None:
        exported(job, tmp_path, "coco", images_per_file=2, categories="head-noun")
        files = [json.loads(p.read_text()) for p in sorted((tmp_path / "annotations").iterdir())]
        assert [len(f["images"]) for f in files] == [2, 2, 1]
        assert [a["id"] for f in files for a in f["annotations"]] == list(range(1, 10))
        names = [c["name"] for c in files[-1]["categories"]]
        assert names == ["cat", "dogs", "sign", "pot"]
        assert [c["name"] for c in files[0]["categories"]] == names[:3]
        assert not (tmp_path / "images").exists()
        image = files[0]["images"][0]
        data = Path(image["uri"].removeprefix("file://")).read_bytes()[image["image_offset"] :]
        assert data[: image["image_size"]] == PHOTOS["a", 0]
