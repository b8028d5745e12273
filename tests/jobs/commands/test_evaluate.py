"""Public benchmarks from end to end: drawn scenes in the benchmarks' own files."""

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.cli import run_command
from kosmos2_core.checkpoint.files import SHAPES_DIRECTORY
from kosmos2_core.shapes.world.scenes import Scene, make_scene
from kosmos2_core.shapes.world.shards import encode_jpeg
from pipeline.exit_codes import ExitCode
from tests.support.checkpoints import random_checkpoint

SCENES = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes of one thing for phrases, since the embedded model knows no caption that goes on after
    a phrase without boxes; of two for expressions. Some lie where COCO has them."""
    folder = tmp_path_factory.mktemp("benchmark")
    (folder / "images" / "val2014").mkdir(parents=True)
    phrases: dict[str, list[Any]] = {"images": [], "annotations": []}
    expressions: dict[str, list[Any]] = {"images": [], "annotations": []}
    for number in range(SCENES):
        one, two = (make_scene(41, number, objects=(n, n), width=240, height=240) for n in (1, 2))
        place = "images" if number % 2 else "images/val2014"
        for name, scene in ((number, one), (SCENES + number, two)):
            (folder / place / f"{name}.jpg").write_bytes(encode_jpeg(scene, 92))
        add_phrases(phrases, number, one)
        add_expressions(expressions, SCENES + number, two)
    (folder / "flickr.json").write_text(json.dumps(phrases))
    (folder / "refcoco.json").write_text(json.dumps(expressions))
    return folder


def add_phrases(content: dict[str, list[Any]], number: int, scene: Scene) -> None:
    caption = scene.caption
    spans = []
    for phrase, boxes in scene.entities:
        start = caption.index(phrase)
        spans.append([[start, start + len(phrase)]])
        content["annotations"] += [
            {"image_id": number, "bbox": pixels(box), "tokens_positive": spans[-1]} for box in boxes
        ]
    content["images"].append({**image(number), "caption": caption, "tokens_positive_eval": spans})


def add_expressions(content: dict[str, list[Any]], number: int, scene: Scene) -> None:
    for phrase, boxes in scene.entities:
        at = len(content["images"])
        content["images"].append({**image(number), "id": at, "caption": phrase})
        content["annotations"].append({"image_id": at, "bbox": pixels(boxes[0])})


def image(number: int) -> dict[str, Any]:
    return {"id": number, "file_name": f"{number}.jpg", "width": 240, "height": 240}


def pixels(box: tuple[float, ...]) -> list[float]:
    x1, y1, x2, y2 = (240 * side for side in box)
    return [x1, y1, x2 - x1, y2 - y1]


def evaluate(folder: Path, *arguments: str, model: str = "shapes") -> None:
    where = [str(folder / f"{arguments[0].removesuffix('30k')}.json"), str(folder / "images")]
    command = ["evaluate", arguments[0], *where, *arguments[1:], "--model", model]
    assert run_command(command) == ExitCode.DONE


def test_phrases_of_drawn_scenes_are_found(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(folder, "flickr30k", "--split", "test", "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["phrases"] == SCENES
    measures = {measure["name"]: measure for measure in found["measures"]}
    assert list(measures) == ["R@1", "R@5", "R@10"]
    assert measures["R@1"]["measured"] > 75
    assert measures["R@1"]["measured"] <= measures["R@5"]["measured"]
    assert measures["R@1"]["published"] == 78.70
    assert sum(each["count"] for each in found["reliability"]["bins"]) == SCENES


def test_expressions_of_drawn_scenes_are_found(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(folder, "refcoco", "--dataset", "refcoco+", "--split", "testA", "--json")
    found = json.loads(capsys.readouterr().out)
    accuracy, _ = found["measures"]
    assert (accuracy["published"], found["phrases"]) == (50.73, 2 * SCENES)
    assert accuracy["measured"] > 75
    url = SHAPES_DIRECTORY.as_uri()
    asked = "refcoco", "--dataset", "refcoco+", "--split", "testA", "--limit", "2"
    evaluate(folder, *asked, model=url)
    page = capsys.readouterr().out
    assert "50.73 %" in page
    assert "not to be compared" in page


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("refcoco", "{}/refcoco.json", "{}", "--limit", "1"), "has no 6.jpg, nor has its"),
        (("refcoco", "{}/refcoco.json", "{}/none"), "no such folder"),
        (("refcoco", "{}/none.json", "{}/images"), "no such file"),
        (("flickr30k", "{}/refcoco.json", "{}/images"), "not an annotation file of MDETR"),
        (("refcoco", "{}/refcoco.json", "{}", "--split", "test"), "there are: val, testA, testB"),
    ],
)
def test_what_is_not_there_is_named_before_a_model_is_loaded(
    arguments: tuple[str, ...], told: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", *(each.format(folder) for each in arguments)]
    assert run_command([*command, "--model", "none/such"]) == ExitCode.USAGE
    assert told in capsys.readouterr().err


def test_a_model_at_a_url_must_know_the_drawn_scenes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = random_checkpoint(tmp_path).as_uri()
    assert run_command(["evaluate", "shapes", "--model", url]) == ExitCode.USAGE
    assert "does not have the vocabulary of the shapes world" in capsys.readouterr().err
