"""Label Studio: by its documentation, then by its library in an environment of its own."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar
from xml.etree import ElementTree

import pytest

from pipeline.dataset.dataset import StoredDataset
from tests.support.export_contract import Boxes, ExportContract, Found, place_of, xyxy
from tests.support.export_dataset import ANSWERS, PHOTOS, SAID, Place, exported, size, truth
from tests.support.foreign import environment, install, run
from tests.support.label_studio import PACKAGE

# What its server checks at an import, then the predictions accepted as they are and exported.
READ = """
import json
from pathlib import Path
from label_studio_sdk.converter import Converter
from label_studio_sdk.label_interface import LabelInterface
from label_studio_sdk.label_interface.objects import TaskValue

config = Path(FOLDER, "interface.xml").read_text()
interface = LabelInterface(config)
interface.validate()
answer = {"problems": [], "predictions": [], "labels": interface.get_control("label").labels}
accepted = []
for path in sorted(Path(FOLDER, "tasks").iterdir()):
    for task in json.loads(path.read_text()):
        if not interface.validate_task({"data": task["data"]}):
            answer["problems"].append(f"not for this interface: {task['data']}")
        for prediction in task["predictions"]:
            answer["problems"] += interface.validate_prediction(prediction, return_errors=True)
        [read] = TaskValue(**task).predictions
        answer["predictions"].append({"data": task["data"], **read.model_dump()})
        done = [{**one, "completed_by": 1} for one in task["predictions"]]
        accepted.append({**task, "id": len(accepted), "annotations": done})
Path("accepted.json").write_text(json.dumps(accepted))
for form in ("COCO_WITH_IMAGES", "JSON_MIN"):
    Converter(config, project_dir=".").convert("accepted.json", form, form, is_dir=False)
    answer[form] = json.loads(Path(form, "result.json").read_text())
"""


class TestLabelStudio(ExportContract):
    """As its documentation says; below its own library reads it."""

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

    def test_images_and_scores_are_there(self, folder: Path) -> None:
        first, *_ = self.tasks(folder)
        name = first["data"]["image"].removeprefix("/data/local-files/?d=")
        assert (folder / name).read_bytes() == PHOTOS["a", 0]
        assert first["predictions"][0]["score"] == pytest.approx((0.876 + 0.25 + 1) / 3)
        assert first["predictions"][0]["model_version"] == f"owner/model {'d' * 12}"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with environment(tmp_path_factory.mktemp("label-studio") / "venv") as python:
        install(python, PACKAGE)
        yield python


def read(python: Path, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = run(
        python,
        READ,
        home_of(folder),
        names={"FOLDER": str(folder)},
        settings={"LOCAL_FILES_DOCUMENT_ROOT": str(folder)},
    )
    return found


def home_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}-home")


@pytest.fixture(scope="module")
def folder(job: StoredDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of several files, in two splits."""
    folder = tmp_path_factory.mktemp("export") / "out"
    options: dict[str, Any] = {"images_per_file": 2, "split": ("train=3", "test=1")}
    exported(job, folder, "label-studio", images="embed", **options)
    assert len(list((folder / "tasks").iterdir())) == 3
    return folder


@pytest.fixture(scope="module")
def found(python: Path, folder: Path) -> dict[str, Any]:
    return read(python, folder)


def pictures(coco: dict[str, Any]) -> dict[int, Place]:
    """By their ids there; the library puts a hash before a name."""
    return {one["id"]: place_of(one["file_name"].partition("__")[2]) for one in coco["images"]}


CLASSES = {"a cat 🐈": 'cat "<&>"', "two dogs": "größte, 犬", "a pot": "it's $5"}


class TestReadByLabelStudio:
    pytestmark: ClassVar = [
        pytest.mark.slow,  # it installs half a gigabyte
        pytest.mark.timeout(900),
    ]

    def test_it_finds_nothing_wrong(self, found: dict[str, Any]) -> None:
        assert found["problems"] == []
        assert found["labels"] == ["object"]
        assert len(found["predictions"]) == len(truth())

    def test_the_same_boxes_come_back_in_pixels(self, found: dict[str, Any]) -> None:
        coco = found["COCO_WITH_IMAGES"]
        places = pictures(coco)
        boxes: dict[Place, list[list[float]]] = {place: [] for place in places.values()}
        for one in coco["annotations"]:
            boxes[places[one["image_id"]]].append(one["bbox"])
        assert boxes.keys() == truth().keys()
        for place, expected in truth().items():
            width, height = size(place)
            assert boxes[place] == [
                pytest.approx(
                    [
                        *(box.x1 * width, box.y1 * height),
                        *((box.x2 - box.x1) * width, (box.y2 - box.y1) * height),
                    ],
                    abs=1e-9,
                )
                for box, _ in expected
            ]

    def test_images_lie_where_tasks_say(self, found: dict[str, Any], folder: Path) -> None:
        coco = found["COCO_WITH_IMAGES"]
        places = pictures(coco)
        for one in coco["images"]:
            copy = home_of(folder) / "COCO_WITH_IMAGES" / one["file_name"]
            name = copy.name.partition("__")[2]
            assert copy.read_bytes() == (folder / "images" / name).read_bytes()
            assert (one["width"], one["height"]) == size(places[one["id"]])

    def test_each_box_has_its_phrase(self, found: dict[str, Any]) -> None:
        for row in found["JSON_MIN"]:
            place = place_of(row["image"].rpartition("/")[2])
            assert ANSWERS[SAID[place]].caption.endswith(row["caption"])
            phrases = row.get("phrase", [])
            if isinstance(phrases, str):  # a single one
                phrases = [phrases]
            assert phrases == [phrase for _, phrase in truth()[place]]
            assert len(row.get("label", [])) == len(truth()[place])

    def test_scores_are_of_boxes_and_of_predictions(self, found: dict[str, Any]) -> None:
        for one in found["predictions"]:
            place = place_of(one["data"]["image"].rpartition("/")[2])
            scores = [box.score for box, _ in truth()[place]]
            rectangles = [r for r in one["result"] if r["type"] == "rectanglelabels"]
            assert [r.get("score") for r in rectangles] == [
                score if score is None else pytest.approx(score, abs=1e-6) for score in scores
            ]
            known = [score for score in scores if score is not None]
            assert one["score"] == pytest.approx(fmean(known) if known else 0, abs=1e-6)

    def test_classes_of_any_name_are_labels_of_the_interface(
        self, python: Path, job: StoredDataset, tmp_path: Path
    ) -> None:
        mapping = tmp_path / "classes.json"
        mapping.write_text(json.dumps(CLASSES))
        options = {"images": "reference", "categories": str(mapping)}
        exported(job, tmp_path / "out", "label-studio", **options)
        found = read(python, tmp_path / "out")
        assert found["problems"] == []
        assert found["labels"] == list(CLASSES.values())
        coco = found["COCO_WITH_IMAGES"]
        names = {one["id"]: one["name"] for one in coco["categories"]}
        got = Counter(names[one["category_id"]] for one in coco["annotations"])
        phrases = [phrase for expected in truth().values() for _, phrase in expected]
        assert got == Counter(CLASSES[phrase] for phrase in phrases if phrase in CLASSES)
