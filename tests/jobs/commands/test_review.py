"""`kosmos2 sample` and `review`: from a dataset to people, back, and what then can be asked for."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs.cli import run_command
from pipeline.dataset.dataset import open_dataset
from pipeline.dataset.layout import REVIEWS
from pipeline.storage import StorageOptions
from tests.support.commits import write_dataset
from tests.support.export_dataset import BRIEF, a_box, answer, photo
from tests.support.foreign import environment, install
from tests.support.foreign import run as run_foreign
from tests.support.label_studio import PACKAGE, Say, Task, answered, tasks_in

Capture = pytest.CaptureFixture[str]
IMAGES = 12


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A dataset in `out`: of each image two boxes, whose score tells which of them are right."""
    members = [(f"{i:02d}.jpg", photo(orientation=6 if i else 1, seed=i)) for i in range(IMAGES)]
    answers = [
        [
            answer(
                BRIEF,
                "a cat by two dogs.",
                {
                    "a cat": [a_box(0, 0, 0.5, 0.5, score=0.5 + i / 100)],
                    "two dogs": [a_box(0.25, 0.25, 1, 1, score=0.1 + i / 100)],
                },
            )
        ]
        for i in range(IMAGES)
    ]
    write_dataset(tmp_path, {"a.tar": (members, answers)})
    return tmp_path


def by_truth(task: Task, box: dict[str, Any]) -> str:
    return "keep" if box["score"] >= 0.5 else "delete"


def run(made: Path, *arguments: str) -> int:
    places = {"out", "judge", "answers.json", "sure", "flat"}
    return run_command([str(made / each) if each in places else each for each in arguments])


def judge(made: Path, *says: Say, count: int = 100, **options: Any) -> None:
    assert run(made, "sample", "out", "judge", "--count", str(count)) == 0
    tasks = tasks_in(made / "judge")
    for person, say in enumerate(says, start=1):
        tasks = answered(tasks, say, person=person, **options)
    (made / "answers.json").write_text(json.dumps(tasks))


def report(made: Path, capsys: Capture) -> Any:
    capsys.readouterr()
    assert run(made, "review", "report", "out", "--json") == 0
    return json.loads(capsys.readouterr().out)


def kept(made: Path) -> list[str]:
    return open_dataset(str(made / "out"), StorageOptions()).store.list(REVIEWS)


def test_tasks_show_the_image_upright_with_its_boxes_in_percent(made: Path) -> None:
    assert run(made, "sample", "out", "judge", "--count", "100", "--export", "label-studio") == 0
    tasks = {task["data"]["index"]: task for task in tasks_in(made / "judge")}
    assert len(tasks) == IMAGES
    head, _, data = tasks[3]["data"]["image"].partition(",")
    assert head == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (40, 60)  # 60x40, on its side
    rectangle, text = tasks[3]["predictions"][0]["result"][2:]
    assert rectangle["value"] == {
        **{"x": 25, "y": 25, "width": 75, "height": 75, "rotation": 0},
        "rectanglelabels": ["right"],
    }
    assert (text["id"], text["value"]["text"]) == (rectangle["id"], ["two dogs"])
    [cat, dogs] = tasks[3]["data"]["review"]["boxes"]
    assert (cat["probability"], dogs["entity"], dogs["box"]) == (1, 1, 0)
    assert "rectanglelabels" in (made / "judge" / "interface.xml").read_text().lower()


def test_a_part_of_the_boxes_has_the_probability_of_its_choice(made: Path) -> None:
    assert run(made, "sample", "out", "judge", "--count", "6") == 0
    boxes = [box for task in tasks_in(made / "judge") for box in task["data"]["review"]["boxes"]]
    assert [box["probability"] for box in boxes] == [6 / (2 * IMAGES)] * 6


def test_urls_need_images_on_the_web(made: Path, capsys: Capture) -> None:
    assert run(made, "sample", "out", "judge", "--images", "url") == 2
    assert "choose --images data" in " ".join(capsys.readouterr().err.split())


def test_a_place_with_tasks_is_left_alone(made: Path, capsys: Capture) -> None:
    judge(made, by_truth)
    assert run(made, "sample", "out", "judge") == 2
    assert "is not empty" in capsys.readouterr().err


def test_answers_give_precisions(made: Path, capsys: Capture) -> None:
    judge(made, by_truth)
    assert run(made, "review", "import", "out", "answers.json") == 0
    captured = capsys.readouterr()
    assert "24 judgements: 12 accepted, 12 rejected" in captured.err
    assert "24 boxes are few" in captured.out
    found = report(made, capsys)
    assert found["whole"]["value"] == 0.5
    assert {each["group"]: each["value"] for each in found["by_class"]} == {"cat": 1, "dogs": 0}
    assert {each["group"]: each["value"] for each in found["by_score"]} == {
        **{"0.1 to 0.2": 0, "0.2 to 0.3": 0},
        **{"0.5 to 0.6": 1, "0.6 to 0.7": 1},
    }
    assert found["calibration"]["precisions"] == [0, 0, 1, 1]


def test_what_people_do_with_a_box_decides(made: Path, capsys: Capture) -> None:
    actions = ["keep", "wrong", "delete", "move0.1", "move0.8", "a small tiger"]
    numbers = iter(range(100))

    def say(task: Task, box: dict[str, Any]) -> str:
        return actions[next(numbers) % len(actions)] if box["entity"] == 0 else "keep"

    judge(made, say)
    assert run(made, "review", "import", "out", "answers.json") == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "14 accepted, 4 rejected, 4 moved, 2 other phrase" in said
    cats = [each for each in report(made, capsys)["by_class"] if each["group"] == "cat"]
    assert cats[0]["value"] == pytest.approx(4 / 12)  # kept, or moved by a tenth


def test_the_same_answers_count_once(made: Path, capsys: Capture) -> None:
    judge(made, by_truth)
    assert run(made, "review", "import", "out", "answers.json") == 0
    before = report(made, capsys)
    assert run(made, "review", "import", "out", "answers.json") == 0
    assert "it counts once" in capsys.readouterr().err
    assert report(made, capsys) == before
    assert len(kept(made)) == 1


def test_a_later_export_of_the_same_project_adds_only_what_is_new(
    made: Path, capsys: Capture
) -> None:
    judge(made, by_truth)
    tasks = json.loads((made / "answers.json").read_text())
    (made / "answers.json").write_text(json.dumps(tasks[:4]))
    assert run(made, "review", "import", "out", "answers.json") == 0
    changed = answered(tasks_in(made / "judge"), lambda *_: "keep", at="2026-01-02T10:00:00Z")
    (made / "answers.json").write_text(json.dumps(changed))
    assert run(made, "review", "import", "out", "answers.json") == 0
    whole = report(made, capsys)["whole"]
    assert (whole["boxes"], whole["value"]) == (2 * IMAGES, 1)  # the later answer counts


def test_two_people_share_a_box(made: Path, capsys: Capture) -> None:
    judge(made, by_truth, lambda *_: "keep")
    assert run(made, "review", "import", "out", "answers.json") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "24 boxes have answers of several people, who agreed on 12" in said
    found = report(made, capsys)
    assert (found["whole"]["boxes"], found["whole"]["value"]) == (24, 0.75)


def test_skipped_tasks_and_added_boxes_are_said(made: Path, capsys: Capture) -> None:
    judge(made, by_truth)
    tasks = json.loads((made / "answers.json").read_text())
    tasks[0]["annotations"][0]["was_cancelled"] = True
    tasks[1]["annotations"] = []
    region = {"id": "new", "type": "rectanglelabels", "value": {"x": 90, "y": 2, "width": 9}}
    region["value"] |= {"height": 9, "rectanglelabels": ["right"]}
    tasks[2]["annotations"][0]["result"].append(region)
    (made / "answers.json").write_text(json.dumps(tasks))
    assert run(made, "review", "import", "out", "answers.json") == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "2 of 12 tasks have no answer; 1 boxes that people added are left out" in said


# ---- what can be asked for then


def test_boxes_are_filtered_by_precision(made: Path, capsys: Capture) -> None:
    judge(made, by_truth)
    assert run(made, "review", "import", "out", "answers.json") == 0
    assert run(made, "filter", "out", "sure", "--min-precision", "0.95") == 0
    assert "--min-precision 0.95 (score >= 0.5, by 24 judgements)" in " ".join(
        capsys.readouterr().out.split()
    )
    [annotations] = (made / "sure" / "annotations").iterdir()
    rows = pq.read_table(annotations).to_pylist()
    phrases = [entity["phrase"] for row in rows for entity in row["entities"]]
    assert phrases == ["a cat"] * IMAGES
    assert "by 24 judgements" in (made / "sure" / "_DERIVED.json").read_text()


def test_a_precision_that_no_score_gives_is_refused(made: Path, capsys: Capture) -> None:
    judge(made, lambda *_: "delete")
    assert run(made, "review", "import", "out", "answers.json") == 0
    assert run(made, "filter", "out", "sure", "--min-precision", "0.5") == 2
    assert "by 24 judgements, the best is 0.000: ask for less" in " ".join(
        capsys.readouterr().err.split()
    )


def test_scores_are_exported_calibrated(made: Path) -> None:
    judge(made, by_truth)
    assert run(made, "review", "import", "out", "answers.json") == 0
    assert run(made, "export", "out", "flat", "--format", "boxes", "--score", "calibrated") == 0
    rows = pq.read_table(made / "flat" / "data").to_pylist()
    assert {(row["phrase"], row["score"]) for row in rows} == {("a cat", 1), ("two dogs", 0)}
    for name in ("README.md", "croissant.json"):
        text = (made / "flat" / name).read_text()
        assert "probability that the box is right, calibrated by 24 judged boxes" in text


@pytest.mark.parametrize(
    "arguments",
    [
        ("filter", "out", "sure", "--min-precision", "0.9"),
        ("export", "out", "flat", "--format", "boxes", "--score", "calibrated"),
        ("review", "report", "out"),
    ],
)
def test_without_judgements_it_says_how_to_get_some(
    arguments: tuple[str, ...], made: Path, capsys: Capture
) -> None:
    assert run(made, *arguments) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "choose boxes with `kosmos2 sample`" in said
    assert not (made / "sure").exists()
    assert not (made / "flat").exists()


# ---- answers that are none


def spoiled(tasks: list[Task], **data: Any) -> list[Task]:
    return [{**tasks[0], "data": {**tasks[0]["data"], **data}}]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tasks: {"tasks": tasks}, "is no list of tasks"),
        (lambda tasks: [{"image": "a", "label": []}], "not JSON-MIN"),
        (lambda tasks: [{**tasks[0], "annotations": []}], "has no answers"),
        (lambda tasks: spoiled(tasks, review=None), "data.review"),
        (lambda tasks: spoiled(tasks, index=-1), "data.index"),
        (lambda tasks: spoiled(tasks, review={"fingerprint": "f", "boxes": []}), "another dataset"),
        (lambda tasks: [], "has no answers"),
    ],
)
def test_answers_of_another_kind_are_refused(
    change: Any, said: str, made: Path, capsys: Capture
) -> None:
    judge(made, by_truth)
    tasks = json.loads((made / "answers.json").read_text())
    (made / "answers.json").write_text(json.dumps(change(tasks)))
    assert run(made, "review", "import", "out", "answers.json") == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert kept(made) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e308, -5, 0])
def test_regions_of_any_numbers_end_in_an_answer_or_an_error(value: float, made: Path) -> None:
    judge(made, by_truth)
    tasks = json.loads((made / "answers.json").read_text())
    for result in (r for t in tasks for r in t["annotations"][0]["result"]):
        result["value"]["width"] = value
    (made / "answers.json").write_text(json.dumps(tasks))
    assert run(made, "review", "import", "out", "answers.json") in (0, 2)


# ---- the library that Label Studio's server checks an import with

_ACCEPTED = """
import json
from pathlib import Path
from label_studio_sdk.label_interface import LabelInterface

interface = LabelInterface(Path(FOLDER, "interface.xml").read_text())
interface.validate()
tasks = [task for path in Path(FOLDER, "tasks").iterdir() for task in json.loads(path.read_text())]
answer = {
    "labels": list(interface.get_control("label").labels),
    "tasks": [interface.validate_task({"data": task["data"]}) for task in tasks],
    "problems": [
        problem
        for task in tasks
        for prediction in task["predictions"]
        for problem in interface.validate_prediction(prediction, return_errors=True)
    ],
}
"""


@pytest.mark.slow
def test_label_studio_accepts_interface_tasks_and_predictions(made: Path) -> None:
    assert run(made, "sample", "out", "judge", "--count", "100") == 0
    with environment(made / "environment") as python:
        install(python, PACKAGE)
        found = run_foreign(python, _ACCEPTED, made / "home", names={"FOLDER": str(made / "judge")})
    assert found == {"labels": ["right", "wrong"], "tasks": [True] * IMAGES, "problems": []}
