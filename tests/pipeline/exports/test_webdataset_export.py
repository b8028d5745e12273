"""WebDataset tars, read by webdataset."""

import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.dataset.dataset import StoredDataset
from tests.support.export_contract import Boxes, ExportContract, Found, assert_upright, place_of
from tests.support.export_dataset import exported


# The library leaves closing its files to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
class TestWebDataset(ExportContract):
    name = "webdataset"

    def samples(self, folder: Path) -> Iterator[dict[str, Any]]:
        import webdataset

        path = str(folder / "data" / "train-00000.tar")
        yield from webdataset.WebDataset(path, shardshuffle=False).decode("pil")

    def read(self, folder: Path) -> Boxes:
        return {
            place_of(sample["__key__"]): [
                Found(
                    box=tuple(box[corner] for corner in ("x1", "y1", "x2", "y2")),
                    phrase=sample["json"]["caption"][entity["start"] : entity["end"]],
                    score=box["score"],
                )
                for entity in sample["json"]["entities"]
                for box in entity["boxes"]
            ]
            for sample in self.samples(folder)
        }

    def test_images_are_upright(self, folder: Path) -> None:
        kinds = Counter[str]()
        for sample in self.samples(folder):
            [kind] = {"jpg", "png", "webp"} & sample.keys()
            kinds[kind] += 1
            assert_upright(sample[kind], place_of(sample["__key__"]))
        assert kinds == {"jpg": 3, "png": 2}  # the turned webp is a png now

    def test_a_tar_tells_no_time_or_owner(self, folder: Path) -> None:
        with tarfile.open(folder / "data" / "train-00000.tar") as archive:
            assert {(m.mtime, m.uid, m.uname, m.mode) for m in archive} == {(0, 0, "", 0o644)}

    def test_references_need_no_images(self, job: StoredDataset, tmp_path: Path) -> None:
        exported(job, tmp_path, "webdataset", images="reference")
        assert all("json" in s and "jpg" not in s for s in self.samples(tmp_path))
