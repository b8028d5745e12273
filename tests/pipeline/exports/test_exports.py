"""Exports, read back with each format's own library: the same boxes, whatever the format."""

import hashlib
import io
import json
import random
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, get_args
from xml.etree import ElementTree

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from kosmos2_core.annotation import Annotation, Box, Entity
from kosmos2_core.images.decode import upright_image
from pipeline.dataset.dataset import Job
from pipeline.errors import CorruptOutput, InputMissing, LeaseHeld, SpecError
from pipeline.exports.categories import categories_from, head_noun
from pipeline.exports.coverage import Coverage
from pipeline.exports.destination import RECORD_KEY, Destination
from pipeline.exports.example import SCORES, example_of, image_id, split_of
from pipeline.exports.exporting import README_KEY, export
from pipeline.exports.formats.fiftyone import LabelsPart
from pipeline.exports.formats.registry import FORMATS
from pipeline.exports.options import ExportOptions, FormatName, Score
from pipeline.schema import annotation_row
from pipeline.storage import InputStore, LocalStore, open_output
from tests.support.commits import write_dataset
from tests.support.tars import a_sample, an_annotation, picture

# ---- one small dataset: two formats of archive, two tasks, a rejected sample, an open shard

STORED = (60, 40)  # pixels, before EXIF


def photo(*, kind: str = "JPEG", orientation: int = 1, seed: int = 0) -> bytes:
    """Four colours, so that each turn shows."""
    image = Image.new("RGB", STORED, (200, 30, seed))
    for colour, corner in (
        ((20, 180, 40), (30, 0)),
        ((30, 40, 210), (0, 20)),
        ((240,) * 3, (30, 20)),
    ):
        image.paste(colour, (*corner, corner[0] + 30, corner[1] + 20))
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    options = {"quality": 95} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    image.save(buffer, kind, **options, **({"exif": exif} if orientation != 1 else {}))
    return buffer.getvalue()


def a_box(*corners: float, score: float | None = 0.5, **changes: Any) -> Box:
    x1, y1, x2, y2 = corners
    logp = None if score is None else score - 1.5
    return Box(x1=x1, y1=y1, x2=x2, y2=y2, ul=0, lr=1023, score=score, logp=logp, **changes)


def answer(prompt: str, rest: str, boxes: dict[str, list[Box]], **changes: Any) -> Annotation:
    """The caption is the prompt's words, a space, and the rest; `boxes` by phrase."""
    caption = f"{prompt} {rest}".strip()
    entities = [
        Entity(phrase=p, start=caption.index(p), end=caption.index(p) + len(p), boxes=tuple(found))
        for p, found in boxes.items()
    ]
    return an_annotation(
        caption=caption, prompt_chars=len(prompt), entities=tuple(entities), **changes
    )


BRIEF, DETAILED = "An image of", "Describe this image in detail:"
ANSWERS = {
    "cats": answer(
        BRIEF,
        "a cat 🐈 and two dogs.",
        {
            "a cat 🐈": [a_box(0.015625, 0.25, 0.5, 0.984375, score=0.876)],
            "two dogs": [
                a_box(0.25, 0.5, 0.75, 0.765625, score=0.25),
                a_box(0.9375, 0.125, 1.0, 0.21875, score=1.0),
            ],
        },
    ),
    "sign": answer(
        BRIEF,
        "👩‍👩‍👧 under 𠜎 the sign, and nothing.",
        {"𠜎 the sign": [a_box(0.0, 0.0, 1.0, 1.0)], "nothing": []},
        issues=("truncated",),
    ),
    "bare": answer(BRIEF, "nothing to see.", {}),
    "given": answer(
        f"{BRIEF} the fire",
        "by a pot.",
        {
            "the fire": [a_box(0.5, 0.5, 0.75, 0.75, score=None, source="prompt")],
            "a pot": [
                a_box(0.125, 0.25, 0.375, 0.5, score=0.75),
                a_box(0.5, 0.25, 0.625, 0.5, score=None, source="prompt"),
            ],
        },
    ),
    "whole": answer(
        DETAILED,
        'The "image" shows a cup of tea.',
        {"a cup of tea": [a_box(0.25, 0.25, 0.75, 0.5)]},
        task="detailed",
    ),
}
META = {
    "url": "https://example.test/0.jpg",
    "clip_similarity_vitb32": 0.25,
    "clip_similarity_vitl14": 10**400,
    "name": "𝒜",
}


PHOTOS = {
    ("a", 0): photo(seed=1),
    ("a", 2): photo(orientation=6, seed=2),
    ("a", 3): photo(kind="PNG", seed=3),
    ("b", 0): photo(orientation=3, seed=4),
    ("b", 1): photo(kind="WEBP", orientation=8, seed=5),
}
SAID = {("a", 0): "cats", ("a", 2): "sign", ("a", 3): "bare", ("b", 0): "given", ("b", 1): "cats"}
SIDEWAYS = {("a", 2), ("b", 1)}
Place = tuple[str, int]  # the stem of a shard, an index


def write(folder: Path, **options: Any) -> Job:
    extension = {("a", 3): "png", ("b", 1): "webp"}
    members: dict[str, list[tuple[str, bytes]]] = {"a": [("1.jpg", b"broken")], "b": []}
    for (shard, index), data in PHOTOS.items():
        members[shard].append((f"{index}.{extension.get((shard, index), 'jpg')}", data))
    members["a"].append(("0.json", json.dumps(META).encode()))
    said = {
        shard: [[ANSWERS[SAID.get((shard, i), "bare")], ANSWERS["whole"]] for i in range(4)]
        for shard in ("a", "b")
    }
    return write_dataset(
        folder,
        {
            "a.tar": (sorted(members["a"]), said["a"]),
            "b.tar.gz": (members["b"], said["b"]),
            "c.tar": ([("0.jpg", picture())], None),
        },
        tasks=("brief", "detailed"),
        **options,
    )


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return write(tmp_path_factory.mktemp("dataset"))


def exported(job: Job, folder: Path, name: str, **options: Any) -> Coverage:
    chosen = ExportOptions(format=name, **{"task": ("brief",), **options})
    return export(job, InputStore(), open_output(str(folder)), chosen)


# ---- what every format must give back


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A box as a format has it, normalised; None where it has no such thing."""

    box: tuple[float, ...]
    phrase: str | None
    score: float | None


Boxes = dict[Place, list[Found]]


def truth() -> dict[Place, list[tuple[Box, str]]]:
    """Without the prompt's words, and without the box of the prompt's own phrase."""
    return {
        place: [
            (box, entity.phrase)
            for entity in ANSWERS[said].entities
            for box in entity.boxes
            if entity.phrase != "the fire"
        ]
        for place, said in SAID.items()
    }


def size(place: Place) -> tuple[int, int]:
    return (STORED[1], STORED[0]) if place in SIDEWAYS else STORED


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
    def folder(cls, job: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
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
        record = json.loads((folder / RECORD_KEY).read_text())
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

    def test_the_same_export_gives_the_same_bytes(
        self, job: Job, folder: Path, tmp_path: Path
    ) -> None:
        exported(job, tmp_path, self.name, **self.options)
        assert files_in(tmp_path) == files_in(folder)


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != RECORD_KEY
    }


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

    def test_features_are_typed_and_pictures_upright(self, folder: Path) -> None:
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

    def test_splits_are_those_of_the_card(self, job: Job, tmp_path: Path) -> None:
        exported(job, tmp_path, "hf", split=("train=1", "test=1", "none=0.0001"), task=())
        found = self.load(tmp_path)
        assert {name: found[name].num_rows for name in found} == split_sizes()
        assert found.keys() == {"train", "test"}  # datasets cannot load an empty split
        assert "image" not in found["train"].features


def split_sizes() -> dict[str, int]:
    """Two annotations per picture."""
    shares = ExportOptions(format="hf", split=("train=1", "test=1", "none=0.0001")).shares
    found = Counter(split_of(hashlib.sha256(data).digest(), shares) for data in PHOTOS.values())
    return {name: 2 * count for name, count in found.items()}


class TestBoxes(ExportContract):
    name = "boxes"

    def read(self, folder: Path) -> Boxes:
        found: Boxes = {("a", 3): []}  # a picture without boxes has no rows
        for row in parquet(folder):
            place = (row["shard_id"][0], row["index"])
            box = tuple(row[corner] for corner in ("x1", "y1", "x2", "y2"))
            pixels = [row[f"{corner}_px"] for corner in ("x1", "y1", "x2", "y2")]
            assert of_pixels(pixels, place) == pytest.approx(box, abs=0.001)
            assert row["caption"][row["start"] : row["end"]] == row["phrase"]
            one = Found(box=box, phrase=row["phrase"], score=row["score"])
            found.setdefault(place, []).append(one)
        return found


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

    def test_pictures_are_those_of_the_ids(self, folder: Path) -> None:
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

    def test_files_are_split_by_images_and_share_their_ids(self, job: Job, tmp_path: Path) -> None:
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


class TestGrit(ExportContract):
    name = "grit"
    SCHEMA = (
        "key: string, clip_similarity_vitb32: double, clip_similarity_vitl14: double, id: int64, "
        "url: string, caption: string, width: int64, height: int64, "
        "noun_chunks: list<element: list<element: double>>, "
        "ref_exps: list<element: list<element: double>>"
    )

    def read(self, folder: Path) -> Boxes:
        return {
            place_of_id(row["id"]): [
                Found(
                    box=tuple(box),
                    phrase=row["caption"][int(start) : int(end)],
                    score=None if np.isnan(score) else score,
                )
                for start, end, *box, score in row["noun_chunks"]
            ]
            for row in parquet(folder)
        }

    def test_it_has_grits_columns(self, folder: Path) -> None:
        table = pq.read_table(folder / "data")
        assert ", ".join(f"{f.name}: {f.type}" for f in table.schema) == self.SCHEMA
        assert b"GLIP" in table.schema.metadata[b"kosmos2.score"]
        assert "GLIP" in (folder / README_KEY).read_text()

    def test_carried_fields_are_taken_and_others_null(self, folder: Path) -> None:
        first, second, *_ = parquet(folder)
        assert (first["clip_similarity_vitb32"], first["clip_similarity_vitl14"]) == (0.25, None)
        assert (first["url"], second["clip_similarity_vitb32"]) == (META["url"], None)
        assert second["url"].endswith("/in/a.tar")
        assert first["ref_exps"] == first["noun_chunks"]
        assert (second["width"], second["height"]) == size(("a", 2))


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

    def test_pictures_are_upright(self, folder: Path) -> None:
        kinds = Counter[str]()
        for sample in self.samples(folder):
            [kind] = {"jpg", "png", "webp"} & sample.keys()
            kinds[kind] += 1
            assert_upright(sample[kind], place_of(sample["__key__"]))
        assert kinds == {"jpg": 3, "png": 2}  # the turned webp is a png now

    def test_a_tar_tells_no_time_or_owner(self, folder: Path) -> None:
        with tarfile.open(folder / "data" / "train-00000.tar") as archive:
            assert {(m.mtime, m.uid, m.uname, m.mode) for m in archive} == {(0, 0, "", 0o644)}

    def test_references_need_no_pictures(self, job: Job, tmp_path: Path) -> None:
        exported(job, tmp_path, "webdataset", images="reference")
        assert all("json" in s and "jpg" not in s for s in self.samples(tmp_path))


class TestLabelStudio(ExportContract):
    """tests/pipeline/exports/test_label_studio.py has its own library read it."""

    name = "label-studio"
    options: ClassVar = {"images": "embed"}

    def tasks(self, folder: Path) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(
            (folder / "tasks" / "train-00000.json").read_text()
        )
        return found

    def read(self, folder: Path) -> Boxes:
        found: Boxes = {}
        for task in self.tasks(folder):
            place = task["data"]["shard_id"][0], task["data"]["index"]
            regions = task["predictions"][0]["result"]
            pairs = zip(regions[::2], regions[1::2], strict=True)
            found[place] = [self.region(*pair, place) for pair in pairs]
        return found

    def region(self, box: Any, phrase: Any, place: Place) -> Found:
        assert box["id"] == phrase["id"]
        assert (box["original_width"], box["original_height"]) == size(place)
        value = box["value"]
        assert value["rectanglelabels"] == ["object"]
        percent = xyxy(value["x"], value["y"], value["width"], value["height"])
        return Found(
            box=tuple(v / 100 for v in percent),
            phrase=phrase["value"]["text"][0],
            score=box.get("score"),
        )

    def test_the_interface_has_what_results_name(self, folder: Path) -> None:
        view = ElementTree.parse(folder / "interface.xml").getroot()
        controls = {c.get("name"): c for c in view if c.get("toName")}
        sources = {c.get("name"): c.get("value") for c in view if c.get("value")}
        labels = {label.get("value") for label in controls["label"]}
        for task in self.tasks(folder):
            for result in task["predictions"][0]["result"]:
                control = controls[result["from_name"]]
                assert control.tag.lower() == result["type"]
                assert control.get("toName") == result["to_name"]
                assert sources[result["to_name"]] == "$image"
                assert set(result["value"].get("rectanglelabels", [])) <= labels
            assert {value.removeprefix("$") for value in sources.values()} <= task["data"].keys()

    def test_pictures_and_scores_are_there(self, folder: Path) -> None:
        first, *_ = self.tasks(folder)
        name = first["data"]["image"].removeprefix("/data/local-files/?d=")
        assert (folder / name).read_bytes() == PHOTOS["a", 0]
        assert first["predictions"][0]["score"] == pytest.approx((0.876 + 0.25 + 1) / 3)
        assert first["predictions"][0]["model_version"] == f"owner/model {'d' * 12}"


class TestFiftyOne(ExportContract):
    """As its documentation says; test_fiftyone.py has the library itself read it."""

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

    def test_attributes_hold_the_span_and_what_is_said_of_the_picture(self, folder: Path) -> None:
        found = self.labels(folder)
        for name, detections in found["labels"].items():
            sample = found["samples"][name]
            for each in (one["attributes"] for one in detections):
                assert each["caption"][each["start"] : each["end"]] == each["phrase"]
                for field in ("task", "caption", "issues"):
                    assert each[field] == sample[field]
        sources = [one["attributes"]["source"] for each in found["labels"].values() for one in each]
        assert Counter(sources) == {"model": 8, "prompt": 1}

    def test_a_picture_without_boxes_has_its_caption(self, folder: Path) -> None:
        found = self.labels(folder)
        assert found["labels"].keys() == found["samples"].keys()
        [bare] = [name for name, boxes in found["labels"].items() if not boxes]
        assert found["samples"][bare]["caption"] == "nothing to see."
        assert [s["issues"] for s in found["samples"].values() if s["issues"]] == [["truncated"]]

    def test_pictures_are_upright_and_named_like_labels(self, folder: Path) -> None:
        found = self.labels(folder)
        paths = {path.stem: path for path in (folder / "data").iterdir()}
        assert paths.keys() == found["labels"].keys()
        for name, path in paths.items():
            with Image.open(path) as image:
                assert_upright(image, place_of(name))
                sample = found["samples"][name]
                assert image.size == (sample["width"], sample["height"])

    def test_labels_are_classes_where_these_are_asked_for(self, job: Job, tmp_path: Path) -> None:
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
    def test_another_picture_cannot(self, uri: str, inside: dict[str, Any]) -> None:
        with pytest.raises(SpecError, match=rf"^{uri} \(sample '0000'\).*--images embed"):
            referring(uri, **inside)


def referring(uri: str, **inside: Any) -> LabelsPart:
    """With one picture, which by default is a file of its own."""
    sample = a_sample(**{"uri": uri, "member": None, "image_offset": 0, **inside})
    options = ExportOptions(format="fiftyone")
    part = LabelsPart(None)
    row = annotation_row("shard", sample, an_annotation())
    part.add(example_of(row, ordinal=0, options=options, has_task_in_name=False, file_name="a.jpg"))
    return part


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

    def test_pictures_are_upright_and_named_like_labels(self, folder: Path) -> None:
        names = {path.stem for path in (folder / "labels" / "train").iterdir()}
        for path in (folder / "images" / "train").iterdir():
            names.remove(path.stem)
            with Image.open(path) as image:
                assert_upright(image, place_of(path.name))
        assert not names

    def test_splits_and_classes_are_in_data_yaml(self, job: Job, tmp_path: Path) -> None:
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


class TestOdvg(ExportContract):
    name = "odvg"
    has_scores = False

    def read(self, folder: Path) -> Boxes:
        import datasets

        rows = datasets.load_dataset(
            "json", data_files=str(folder / "data" / "*.jsonl"), cache_dir=str(folder) + "-cache"
        )["train"]
        places = dict(zip(SAID, rows, strict=True))
        for place, row in places.items():
            assert (row["width"], row["height"]) == size(place)
            for region in row["grounding"]["regions"]:
                [[start, end]] = region["tokens_positive"]
                assert row["grounding"]["caption"][start:end] == region["phrase"]
        return {
            place: [
                Found(box=of_pixels(region["bbox"], place), phrase=region["phrase"], score=None)
                for region in row["grounding"]["regions"]
            ]
            for place, row in places.items()
        }


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


def supervision() -> Any:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has no OpenCV
        import supervision

    return supervision


def assert_upright(image: Image.Image, place: Place) -> None:
    """What a reader that knows no EXIF sees is the picture that the model saw."""
    assert image.getexif().get(0x0112, 1) == 1
    expected = np.asarray(upright_image(PHOTOS[place]), dtype=float)
    assert np.abs(np.asarray(image.convert("RGB"), dtype=float) - expected).mean() < 2


def test_every_format_has_a_contract_test() -> None:
    tested = {contract.name for contract in ExportContract.__subclasses__()}
    assert tested == set(FORMATS) == set(get_args(FormatName))


# ---- what all formats have in common


def test_captions_can_keep_their_prompt(job: Job, tmp_path: Path) -> None:
    exported(job, tmp_path, "hf", strip_prompt=False, task=())
    rows = parquet(tmp_path)
    assert {row["task"] for row in rows} == {"brief", "detailed"}
    assert all(row["caption"].startswith((BRIEF, DETAILED)) for row in rows)
    for row in rows:
        for entity in row["entities"]:
            assert row["caption"][entity["start"] : entity["end"]] == entity["phrase"]
    assert sum(len(entity["boxes"]) for row in rows for entity in row["entities"]) == 15


def test_examples_of_several_tasks_have_names_of_their_own(job: Job, tmp_path: Path) -> None:
    exported(job, tmp_path, "webdataset", task=())
    with tarfile.open(tmp_path / "data" / "train-00000.tar") as archive:
        names = archive.getnames()
    assert len(names) == len(set(names)) == 20
    assert [name.rpartition("-")[2] for name in names[:4]] == [
        *("brief.jpg", "brief.json"),
        *("detailed.jpg", "detailed.json"),
    ]


def test_files_end_at_the_size_asked_for(tmp_path: Path) -> None:
    """Noise, since other pictures are too small to fill a file."""
    noise = np.random.default_rng(0)
    members = []
    for i in range(12):
        buffer = io.BytesIO()
        Image.fromarray(noise.integers(0, 256, (300, 300, 3), np.uint8)).save(buffer, "PNG")
        members.append((f"{i:02d}.png", buffer.getvalue()))  # 270 kB each
    job = write_dataset(tmp_path, {"n.tar": (members, [[ANSWERS["bare"]]] * 12)})
    for name, extension in (("hf", "parquet"), ("webdataset", "tar")):
        exported(job, tmp_path / name, name, images="embed", file_size_mb=1)
        files = sorted((tmp_path / name / "data").iterdir())
        assert [path.name for path in files] == [f"train-{i:05d}.{extension}" for i in range(3)]
        assert all(path.stat().st_size < 1_300_000 for path in files)


@pytest.mark.parametrize(
    "name", [name for name, chosen in FORMATS.items() if name not in ("yolo", "voc")]
)
def test_files_of_text_end_at_the_size_asked_for(name: FormatName, tmp_path: Path) -> None:
    """Of the formats that put many pictures into a file; long texts, since others fill none."""
    draw = random.Random(3)
    members, said = [], []
    for i in range(8):
        noise = draw.randbytes(150_000).hex()  # 300 kB of text
        members += [(f"{i}.jpg", picture(i)), (f"{i}.json", json.dumps({"url": noise}).encode())]
        said.append([answer(BRIEF, f"a cat {noise}", {"a cat": [a_box(0.25, 0.25, 0.5, 0.5)]})])
    job = write_dataset(tmp_path, {"n.tar": (members, said)})
    exported(job, tmp_path / name, name, file_size_mb=1)
    files = [path for path in (tmp_path / name).rglob("train-*") if path.stat().st_size > 10_000]
    assert len(files) > 1
    # One more than fits: of each there are the caption and the URL.
    assert all(path.stat().st_size < 1_000_000 + 2 * 320_000 for path in files)


@pytest.mark.parametrize(("score", "expected"), [("mass", 0.5), ("logp", np.exp(-1))])
def test_the_score_is_the_one_asked_for(
    score: Score, expected: float, job: Job, tmp_path: Path
) -> None:
    exported(job, tmp_path, "boxes", score=score)
    [sign] = [row for row in parquet(tmp_path) if row["phrase"] == "𠜎 the sign"]
    assert sign["score"] == pytest.approx(expected, abs=1e-6)
    assert sign["logp"] == -1


@pytest.mark.parametrize(
    ("score", "expected"),
    [("mass", 0.5), ("joint", 0.5 * np.exp(-2)), ("logp", np.exp(-1)), ("consistency", 0.25)],
)
def test_a_joint_score_is_that_of_box_and_phrase(score: Score, expected: float) -> None:
    box = a_box(0.0, 0.0, 1.0, 1.0, score=0.5, consistency=0.25)
    entity = Entity(phrase="a", start=0, end=1, boxes=(box,), phrase_logprob=-2.0)
    assert SCORES[score](entity, box) == pytest.approx(expected)


def test_a_phrase_that_was_given_is_beyond_doubt() -> None:
    box = a_box(0.0, 0.0, 1.0, 1.0, score=0.5)
    entity = Entity(phrase="a", start=0, end=1, boxes=(box,))
    assert SCORES["joint"](entity, box) == 0.5
    assert SCORES["joint"](entity, a_box(0.0, 0.0, 1.0, 1.0, score=None)) is None


def test_every_score_that_can_be_asked_for_is_one() -> None:
    assert set(SCORES) == set(get_args(Score))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"format": "coco", "task": ()}, "choose one with --task: brief, detailed"),
        ({"format": "hf", "task": ("sing",)}, "no task 'sing'"),
        ({"format": "grit", "images": "embed"}, "no place for pictures"),
        ({"format": "hf", "categories": "head-noun"}, "phrases, no classes"),
        ({"format": "yolo", "categories": "/nowhere.json"}, "/nowhere.json: cannot be read"),
        ({"format": "hf", "score": "consistency"}, "for datasets made with --verify-boxes"),
    ],
)
def test_what_a_format_cannot_do_is_refused_before_anything_is_written(
    options: dict[str, Any], said: str, job: Job, tmp_path: Path
) -> None:
    with pytest.raises(SpecError, match=said):
        exported(job, tmp_path / "out", options.pop("format"), **options)
    assert not (tmp_path / "out").exists()


def test_a_picture_that_is_gone_ends_the_export_unfinished(tmp_path: Path) -> None:
    job = write(tmp_path)
    (tmp_path / "in" / "b.tar.gz").unlink()
    with pytest.raises(InputMissing, match=r"b\.tar\.gz"):
        exported(job, tmp_path / "export", "webdataset")
    assert not json.loads((tmp_path / "export" / RECORD_KEY).read_text())["is_complete"]
    assert exported(job, tmp_path / "export", "webdataset", images="reference").annotations == 5


def test_an_export_can_come_from_and_go_to_s3(s3_bucket: str, tmp_path: Path) -> None:
    job = write(tmp_path, output=f"s3://{s3_bucket}/out")
    store = open_output(f"s3://{s3_bucket}/export")
    for name in ("boxes", "webdataset"):
        options = ExportOptions(format=name, task=("brief",), overwrite=True)
        export(job, InputStore(), store, options)
    assert store.list("data") == ["data/train-00000.tar"]
    with tarfile.open(fileobj=io.BytesIO(store.get("data/train-00000.tar").data)) as archive:
        assert len(archive.getnames()) == 2 * len(SAID)
    assert json.loads(store.get(RECORD_KEY).data)["is_complete"]


# ---- where it goes


def test_a_finished_export_is_replaced_only_on_request(job: Job, tmp_path: Path) -> None:
    exported(job, tmp_path, "yolo", split=("train=1", "val=1"))
    with pytest.raises(SpecError, match="--overwrite"):
        exported(job, tmp_path, "coco")
    mine = tmp_path / "notes.txt"
    mine.write_text("not yours")
    exported(job, tmp_path, "coco", overwrite=True)
    assert {str(path) for path in files_in(tmp_path)} - {".lock"} == {
        *("README.md", "notes.txt", "annotations/train-00000.json", "results/train-00000.json"),
    }


def test_something_else_is_never_replaced(job: Job, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "precious").write_text("mine")
    with pytest.raises(SpecError, match=r"not empty \(data/precious\)"):
        exported(job, tmp_path, "hf", overwrite=True)
    assert sorted(files_in(tmp_path)) == ["data/precious"]


def test_a_record_of_another_kind_is_left_alone(job: Job, tmp_path: Path) -> None:
    (tmp_path / RECORD_KEY).write_text("{}")
    with pytest.raises(SpecError, match="choose another DEST"):
        exported(job, tmp_path, "hf", overwrite=True)
    assert sorted(files_in(tmp_path)) == []


def test_an_unfinished_export_is_begun_anew(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at the last file: what there is does not say that it is whole, and goes."""

    def full(self: LocalStore, key: str, data: bytes) -> None:
        if key == README_KEY:
            raise OSError("no space left")
        original(self, key, data)

    original = LocalStore.put
    monkeypatch.setattr(LocalStore, "put", full)
    with pytest.raises(OSError, match="no space"):
        exported(job, tmp_path, "webdataset")
    monkeypatch.undo()
    assert (tmp_path / "data" / "train-00000.tar").exists()
    assert not json.loads((tmp_path / RECORD_KEY).read_text())["is_complete"]
    exported(job, tmp_path, "boxes")
    assert json.loads((tmp_path / RECORD_KEY).read_text())["is_complete"]
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["train-00000.parquet"]


def test_of_two_exports_at_once_one_is_told(tmp_path: Path) -> None:
    store = open_output(str(tmp_path))
    with Destination(store) as first, Destination(store) as second:
        for place in (first, second):
            place.begin("hf", folders=("data",), files=(), overwrite=False)
        second.write("data/x", b"1")
        with pytest.raises(LeaseHeld, match="another export"):
            first.finish({})
        second.finish({})
    assert json.loads((tmp_path / RECORD_KEY).read_text())["is_complete"]


# ---- what goes into all of them


def test_a_span_that_leads_elsewhere_is_found(job: Job) -> None:
    broken = Entity(phrase="a cat", start=1, end=6, boxes=())
    row = annotation_row("shard", a_sample(), an_annotation(entities=(broken,)))
    with pytest.raises(CorruptOutput, match="'a cat' does not lead to it"):
        example_of(
            row,
            ordinal=0,
            options=ExportOptions(format="hf", strip_prompt=False),
            has_task_in_name=False,
            file_name="0000.jpg",
        )


def test_image_ids_start_at_1_and_are_exact_in_json() -> None:
    assert image_id(0, 0) == 1
    assert image_id(0, 2**31 - 1) < image_id(1, 0)
    assert image_id(2**22 - 1, 2**31 - 1) <= 2**53
    with pytest.raises(SpecError, match="larger shards"):
        image_id(2**22, 0)


def test_splits_have_their_shares_and_are_stable() -> None:
    shares = ExportOptions(format="hf", split=("train=90", "val=5", "test=5")).shares
    hashes = [np.random.default_rng(i).bytes(32) for i in range(4000)]
    counts = Counter(split_of(h, shares) for h in hashes)
    assert counts["train"] / 4000 == pytest.approx(0.9, abs=0.02)
    assert counts["val"] / 4000 == pytest.approx(0.05, abs=0.015)
    assert split_of(b"\xff" * 32, shares) == "test"
    assert split_of(b"\x00" * 32, shares) == "train"


@pytest.mark.parametrize("split", [(), ("train",), ("train=0",), ("a=1", "a=2"), ("../x=1",)])
def test_splits_that_mean_nothing_are_refused(split: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="split"):
        ExportOptions(format="hf", split=split)


@pytest.mark.parametrize(
    ("phrase", "noun"),
    [
        ("a snowman", "snowman"),
        ("A cup of coffee", "cup"),
        ("the man in a red hat", "man"),
        ("two brown dogs", "dogs"),
        ("a woman's hand", "hand"),
        ("a cat 🐈", "cat"),
        ("a t-shirt, worn", "t-shirt"),
        ("🐈", "object"),
    ],
)
def test_head_noun(phrase: str, noun: str) -> None:
    assert head_noun(phrase) == noun


def test_a_category_file_maps_phrases_and_may_name_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "classes.json"
    path.write_text(json.dumps({"snowman": "person", "The  Hat": "thing", "*": "other"}))
    categories = categories_from(str(path))
    assert categories.names == ["person", "thing", "other"]
    found = [categories.id_of(phrase) for phrase in ("A snowman", "a hat", "hats")]
    assert found == [1, 2, 3]
    path.write_text(json.dumps({"snowman": "person"}))
    assert categories_from(str(path)).id_of("hats") is None


@pytest.mark.parametrize(("content", "said"), [("{", "not JSON"), ("[1]", "not an object of")])
def test_a_category_file_that_is_none_is_refused(content: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "classes.json"
    path.write_text(content)
    with pytest.raises(SpecError, match=said):
        categories_from(str(path))
