"""What every export format must give back, read with its own library: the same boxes."""

import json
import re
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from kosmos2_core.images.decode import upright_image
from pipeline.dataset.dataset import StoredDataset
from pipeline.dataset.layout import EXPORT_KEY, annotations_key
from pipeline.exports.exporting import README_KEY
from pipeline.exports.formats.registry import EXPORT_FORMATS
from pipeline.exports.manifest import read_manifest
from pipeline.exports.options import FormatName
from pipeline.exports.papers.croissant import CROISSANT_KEY
from pipeline.storage import open_output
from tests.support.export_dataset import PHOTOS, Place, exported, size, truth


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A box as a format has it, normalised; None where it has no such thing."""

    box: tuple[float, ...]
    phrase: str | None
    score: float | None


Boxes = dict[Place, list[Found]]
_RECORDS = (README_KEY, CROISSANT_KEY)
_PART = re.compile(r"-\d{5}(?!\d)")
_SECTION = re.compile(r"-(\d{3})-(\d{5})(?!\d)")


def place_of(name: str) -> Place:
    """From the name of an example: `a-<hash>-000002` -> ("a", 2)."""
    shard, _, index = Path(name).stem.split("-")[:3]
    return shard, int(index)


def place_of_id(number: int) -> Place:
    """Of the plan's first two shards, 2^31 apart."""
    return ("a", "b")[(number - 1) >> 31], (number - 1) % 2**31


def of_pixels(box: Any, place: Place) -> tuple[float, ...]:
    width, height = size(place)
    return tuple(float(v) / side for v, side in zip(box, (width, height) * 2, strict=True))


def of_detections(found: Any) -> Boxes:
    """What supervision has read."""
    assert found.classes == ["object"]
    return {
        place_of(path): [
            Found(box=of_pixels(box, place_of(path)), phrase=None, score=None)
            for box in detections.xyxy
        ]
        for path, _, detections in found
    }


def xyxy(x: float, y: float, width: float, height: float) -> tuple[float, ...]:
    return x, y, x + width, y + height


def parquet(folder: Path) -> list[dict[str, Any]]:
    return pq.read_table(folder / "data").to_pylist()


def sidecar_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a sidecar file, a tar or Parquet."""
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    with tarfile.open(path) as archive:
        files = [archive.extractfile(member) for member in archive]
        return [json.loads(file.read()) for file in files if file is not None]


class ExportContract:
    """Each format reads back as `truth`. `pixels` says how exact it is."""

    name: ClassVar[FormatName]
    pixels: ClassVar[float] = 0.01
    has_phrases: ClassVar[bool] = True
    has_scores: ClassVar[bool] = True
    has_unscored: ClassVar[bool] = True  # boxes of the prompt, which have no score
    options: ClassVar[dict[str, Any]] = {}

    def read(self, folder: Path) -> Boxes:
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, job: StoredDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp(cls.name)
        exported(job, folder, cls.name, **cls.options)
        return folder

    def test_the_same_boxes_come_back(self, folder: Path) -> None:
        found = self.read(folder)
        for place, expected in truth().items():
            boxes = [(b, p) for b, p in expected if self.has_unscored or b.source == "model"]
            got = found.pop(place, [])
            assert len(got) == len(boxes), place
            for one, (box, phrase) in zip(got, boxes, strict=True):
                within = [self.pixels / side for side in size(place)] * 2
                assert np.all(np.abs(np.subtract(one.box, box.xyxy)) <= within), (place, one, box)
                assert one.phrase == (phrase if self.has_phrases else None)
                if self.has_scores:
                    assert one.score == pytest.approx(box.score, abs=1e-6)
        assert not found

    def test_it_says_what_it_is_and_that_it_is_whole(self, folder: Path) -> None:
        record = json.loads((folder / EXPORT_KEY).read_text())
        assert (record["is_complete"], record["format"]) == (True, self.name)
        coverage = record["details"]["coverage"]
        assert (coverage["shards_exported"], coverage["shards_planned"]) == (2, 3)
        assert (coverage["annotations"], coverage["boxes"], coverage["rejected"]) == (5, 9, 1)
        assert coverage["by_split"] == {"train": 5}
        assert coverage["issues"] == {"truncated": 1}
        files = [path for path in folder.rglob("*") if path.is_file() and path.name[0] not in "._"]
        assert record["details"]["files"] == len(files)
        assert record["details"]["size_bytes"] == sum(path.stat().st_size for path in files)
        allowed = {*record["folders"], ""}
        assert {str(path.parent.relative_to(folder)).replace(".", "") for path in files} <= allowed
        card = (folder / README_KEY).read_text()
        assert "2 of 3 planned shards" in card
        assert "| boxes | 9 |" in card

    def test_what_was_committed_since_is_added(self, job: StoredDataset, tmp_path: Path) -> None:
        """The second shard first, then also the first: together they are what one export is."""
        growing, late = without_first_shard(job, tmp_path / "out")
        folder, whole = tmp_path / "export", tmp_path / "whole"
        exported(growing, folder, self.name, **self.options)
        before = files_in(folder)
        growing.store.create(*late)
        coverage = exported(growing, folder, self.name, **self.options)
        is_added = EXPORT_FORMATS[self.name].can_be_parallel
        assert (coverage.shards_kept, coverage.shards_exported) == (int(is_added), 2)
        after = files_in(folder)
        if is_added:
            own = before.keys() - {*_RECORDS, *EXPORT_FORMATS[self.name].files}
            assert {name: after[name] for name in own} == {name: before[name] for name in own}
        exported(growing, whole, self.name, **self.options)
        found = [self.read(view) for view in section_views(folder, tmp_path)]
        assert {place: boxes for each in found for place, boxes in each.items()} == self.read(whole)
        held = {shard.shard_id: shard.files for shard in read_manifest(open_output(str(folder)))}
        assert held.keys() == {shard.shard_id for shard in growing.plan.shards[:2]}
        for shard_id, names in held.items():
            assert set(names) <= after.keys()
            assert names or any(shard_id in name for name in after)
        again = exported(growing, folder, self.name, **self.options)
        assert (again.shards_kept, again.boxes) == (2, 9)
        assert files_in(folder) == after  # nothing is written

    def test_the_same_export_gives_the_same_bytes(
        self, job: StoredDataset, folder: Path, tmp_path: Path
    ) -> None:
        exported(job, tmp_path, self.name, **self.options)
        assert files_in(tmp_path) == files_in(folder)


def without_first_shard(
    job: StoredDataset, output: Path
) -> tuple[StoredDataset, tuple[str, bytes]]:
    """A copy of the dataset in which the first shard is not committed, and its commit."""
    shutil.copytree(job.store.uri.removeprefix("file://"), output)
    store = open_output(str(output))
    key = annotations_key(job.plan.shards[0].shard_id)
    late = store.get(key).data
    store.delete(key)
    return replace(job, store=store), (key, late)


def section_views(folder: Path, at: Path) -> Iterator[Path]:
    """Copies of an export that hold the numbered files of one section each, as if it was alone."""
    names = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    sections = {found[1] for name in names if (found := _SECTION.search(name))}
    for section in ["", *sorted(sections)]:
        view = at / f"view-{section}"
        for name in names:
            found = _SECTION.search(name)
            if not _PART.search(name) or (found[1] if found else "") == section:
                target = view / _SECTION.sub(r"-\2", name)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / name, target)
        yield view


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith("_EXPORT")
    }


def supervision() -> Any:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has no OpenCV
        import supervision

    return supervision


def assert_upright(image: Image.Image, place: Place) -> None:
    """What a reader that knows no EXIF sees is the image that the model saw."""
    assert image.getexif().get(0x0112, 1) == 1
    expected = np.asarray(upright_image(PHOTOS[place]), dtype=float)
    assert np.abs(np.asarray(image.convert("RGB"), dtype=float) - expected).mean() < 2
