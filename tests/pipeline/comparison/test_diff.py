"""Two datasets compared: what is joined, what differs, and how sure the shifts are."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page

from jobs.cli import run_command
from kosmos2_core.annotation import Annotation, Box, Entity
from kosmos2_core.grounding.grid import box_of
from pipeline.comparison.diff import Diff, diff
from pipeline.comparison.matching import compare
from pipeline.comparison.pairing import Pair
from pipeline.comparison.shifts import TaskCounts, TaskDifferences
from pipeline.dataset.dataset import StoredDataset, open_dataset
from pipeline.datasets import Dataset
from pipeline.errors import SpecError
from pipeline.storage import StorageOptions
from tests.support.browser import DESKTOP, PHONE, visiting
from tests.support.commits import write_dataset
from tests.support.tars import Member, a_sample, an_annotation, annotation_row, picture

Places = Mapping[str, Sequence[tuple[int, int]]]  # corner cells of the boxes of each phrase

LEFT, LEFT_TOO, RIGHT = (33, 500), (34, 500), (48, 574)
CAT = {"a cat": [LEFT]}


def said(caption: str, boxes: Places, *, score: float = 0.5, **changes: object) -> Annotation:
    entities = tuple(
        Entity(
            phrase=phrase,
            start=caption.index(phrase),
            end=caption.index(phrase) + len(phrase),
            boxes=tuple(_box(ul, lr, score) for ul, lr in found),
        )
        for phrase, found in boxes.items()
    )
    return an_annotation(caption=caption, entities=entities, **changes)


def _box(ul: int, lr: int, score: float) -> Box:
    x1, y1, x2, y2 = box_of(ul, lr)
    return Box(x1=x1, y1=y1, x2=x2, y2=y2, ul=ul, lr=lr, score=score, logp=-0.5)


ONE_CAT = said("a cat", CAT)


def members(*seeds: int) -> list[Member]:
    """Two members have the same bytes if they have the same seed."""
    return [(f"{place:04d}.jpg", picture(seed)) for place, seed in enumerate(seeds)]


def dataset(folder: Path, shards: Mapping[str, Mapping[int, Annotation]]) -> StoredDataset:
    """Answers by the seed of the picture, for each tar."""
    archives = {
        f"{name}.tar": (members(*answers), [[answer] for answer in answers.values()])
        for name, answers in shards.items()
    }
    return write_dataset(folder, archives)


def versions(folder: Path, a: Sequence[Annotation], b: Sequence[Annotation]) -> list[StoredDataset]:
    """Two answers to each picture of the same tar."""
    first = dataset(folder / "a", {"x": dict(enumerate(a))})
    return [first, dataset(folder / "b", {"x": dict(enumerate(b))})]


def brief(found: Diff) -> TaskDifferences:
    assert list(found.figures.tasks) == ["brief"]
    return found.figures.tasks["brief"]


# ---- what is joined


def test_a_dataset_does_not_differ_from_itself(tmp_path: Path) -> None:
    one = dataset(tmp_path, {"x": {0: ONE_CAT, 1: said("a dog", {"a dog": [RIGHT]})}})
    found = diff(one, one, count=9)
    task = brief(found)
    assert (found.figures.share_different, found.largest) == (0, ())
    assert (task.joined, task.only_in_a, task.only_in_b) == (2, 0, 0)
    assert (task.boxes_same, task.boxes_moved, task.boxes_lost, task.boxes_gained) == (2, 0, 0, 0)
    assert {name: shift.shift.value for name, shift in task.shifts.items()} == {
        "boxes per annotation": 0,
        "score of all boxes": 0,
        "score of matched boxes": 0,
    }


def test_images_are_joined_by_their_bytes_however_they_are_cut_into_shards(tmp_path: Path) -> None:
    answers = {seed: said(f"number {seed}", {}) for seed in range(5)}
    a = dataset(tmp_path / "a", {"x": answers})
    turned = {seed: answers[seed] for seed in (4, 0, 2)}
    b = dataset(tmp_path / "b", {"y": turned, "z": {seed: answers[seed] for seed in (3, 1)}})
    found = diff(a, b)
    assert (found.figures.joined, found.figures.joined_by_place) == (5, 0)
    assert found.figures.share_different == 0


def test_copies_of_an_image_are_joined_one_to_one(tmp_path: Path) -> None:
    same = [[ONE_CAT]] * 3
    a = write_dataset(tmp_path / "a", {"x.tar": (members(7, 7, 7), same)})
    b = write_dataset(tmp_path / "b", {"y.tar": (members(7, 7), same[:2])})
    task = brief(diff(a, b))
    assert (task.joined, task.only_in_a, task.only_in_b) == (2, 1, 0)


def test_images_with_other_bytes_are_joined_by_their_place(tmp_path: Path) -> None:
    before = dataset(tmp_path / "data", {"x": {0: ONE_CAT, 1: ONE_CAT}})
    (tmp_path / "data").rename(tmp_path / "before")
    a = open_dataset(str(tmp_path / "before" / "out"), StorageOptions())
    b = dataset(tmp_path / "data", {"x": {8: ONE_CAT, 1: ONE_CAT}})  # of the same URI
    assert b.plan.shards[0].shard_id == before.plan.shards[0].shard_id
    found = diff(a, b).figures
    assert (found.joined, found.joined_by_place, found.only_in_a) == (2, 1, 0)


def test_annotations_without_a_partner_are_counted_as_different(tmp_path: Path) -> None:
    a = dataset(tmp_path / "a", {"x": {0: ONE_CAT, 1: ONE_CAT, 2: ONE_CAT}})
    b = dataset(tmp_path / "b", {"x": {2: ONE_CAT, 3: ONE_CAT}})
    found = diff(a, b).figures
    assert (found.joined, found.only_in_a, found.only_in_b) == (1, 2, 1)
    assert found.share_different == 3 / 4


def test_datasets_of_other_images_cannot_be_compared(tmp_path: Path) -> None:
    a = dataset(tmp_path / "a", {"x": {0: ONE_CAT}})
    b = dataset(tmp_path / "b", {"x": {1: ONE_CAT}})
    with pytest.raises(SpecError, match="no annotation of the same image and task in common"):
        diff(a, b)


# ---- what differs

CAPTION = "a cat and a dog"
BOTH = {"a cat": [LEFT], "a dog": [RIGHT]}


@pytest.mark.parametrize(
    ("a", "b", "counts"),
    [
        (BOTH, BOTH, {"boxes_same": 2}),
        (BOTH, {"a cat": [LEFT_TOO], "a dog": [RIGHT]}, {"boxes_same": 1, "boxes_moved": 1}),
        (BOTH, CAT, {"boxes_same": 1, "boxes_lost": 1}),
        (CAT, BOTH, {"boxes_same": 1, "boxes_gained": 1}),
        (CAT, {"a cat": [RIGHT]}, {"boxes_lost": 1, "boxes_gained": 1}),
        (CAT, {"a dog": [LEFT]}, {"boxes_same": 1, "boxes_renamed": 1}),
        # Each box has one partner, the nearest one.
        ({"a cat": [LEFT]}, {"a cat": [LEFT_TOO, LEFT]}, {"boxes_same": 1, "boxes_gained": 1}),
        # Of two boxes in the same place, the one with the same phrase.
        (CAT, {"a dog": [LEFT], "a cat": [LEFT]}, {"boxes_same": 1, "boxes_gained": 1}),
    ],
)
def test_boxes_are_the_same_moved_lost_or_gained(
    tmp_path: Path, a: Places, b: Places, counts: dict[str, int]
) -> None:
    found = brief(diff(*versions(tmp_path, [said(CAPTION, a)], [said(CAPTION, b)])))
    names = ("boxes_same", "boxes_moved", "boxes_lost", "boxes_gained", "boxes_renamed")
    assert {name: number for name in names if (number := getattr(found, name))} == counts
    is_changed = counts.keys() - {"boxes_same", "boxes_renamed"}
    assert (found.changed, found.captions_changed) == (bool(is_changed), 0)
    assert (found.moved_iou is None) is ("boxes_moved" not in counts)


def test_boxes_of_prompts_are_not_compared(tmp_path: Path) -> None:
    (entity,) = ONE_CAT.entities
    given = Box(**{**_as_dict(entity.boxes[0]), "source": "prompt", "score": None, "logp": None})
    answer = an_annotation(
        caption="a cat", entities=(Entity(phrase="a cat", start=0, end=5, boxes=(given,)),)
    )
    found = brief(diff(*versions(tmp_path, [answer], [ONE_CAT])))
    assert (found.boxes_same, found.boxes_lost, found.boxes_gained) == (0, 0, 1)


def _as_dict(box: Box) -> dict[str, object]:
    return {name: getattr(box, name) for name in Box.__dataclass_fields__}


def test_the_largest_differences_come_first_and_equal_answers_never(tmp_path: Path) -> None:
    a = [ONE_CAT, said("a cat", CAT), said("a cat sits", CAT), said("a cat", CAT)]
    b = [ONE_CAT, said("a cat", {}), said("a cat lies", CAT), said("a cat", {"a cat": [LEFT_TOO]})]
    largest = diff(*versions(tmp_path, a, b), count=9).largest
    assert [found.pair.a["index"] for found in largest] == [1, 2, 3]
    assert [found.changes_a for found in largest] == [["lost"], ["same"], ["moved"]]
    assert [found.changes_b for found in largest] == [[], ["same"], ["moved"]]
    sizes = [found.size for found in largest]
    assert sizes == sorted(sizes, reverse=True)
    (first,) = diff(*versions(tmp_path / "again", a, b), count=1).largest
    assert first.pair.a["index"] == 1


def test_flags_and_scores_shift(tmp_path: Path) -> None:
    a = [said("a cat", CAT, score=0.4), said(CAPTION, CAT, score=0.6, issues=("low_score",))]
    b = [said("a cat", CAT, score=0.6), said(CAPTION, BOTH, score=0.8)]
    found = brief(diff(*versions(tmp_path, a, b)))
    flag, boxes = found.flags["low_score"], found.shifts["boxes per annotation"]
    assert (flag.a, flag.b, flag.shift.value) == (0.5, 0.0, -0.5)
    assert (boxes.a, boxes.b) == (1.0, 1.5)
    matched = found.shifts["score of matched boxes"]
    assert (matched.a, matched.b) == pytest.approx((0.5, 0.7))
    assert (matched.shift.low, matched.shift.high) == pytest.approx((0.2, 0.2))
    assert found.shifts["score of all boxes"].b == pytest.approx((0.6 + 0.8 + 0.8) / 3)


# ---- how sure it is


def _pair(number: int, a: float, b: float) -> Pair:
    sample = a_sample(number, image_sha256=number.to_bytes(4, "big") + bytes(28))
    rows = (annotation_row("x", sample, said("a cat", CAT, score=score)) for score in (a, b))
    one, other = rows
    return Pair(a=one, b=other)


def test_the_interval_is_that_of_the_mean_over_images() -> None:
    draw = np.random.default_rng(5)
    shifts = draw.normal(0.1, 0.05, 900)
    counts = TaskCounts()
    for number, shift in enumerate(shifts):
        counts.add(compare(_pair(number, 0.5, 0.5 + shift), 0.5))
    found = counts.result(only_in_a=0, only_in_b=0).shifts["score of matched boxes"].shift
    margin = 1.96 * shifts.std(ddof=1) / math.sqrt(len(shifts))
    assert found.value == pytest.approx(shifts.mean(), abs=1e-6)
    assert found.high - found.value == pytest.approx(margin, rel=0.15)
    assert found.value - found.low == pytest.approx(margin, rel=0.15)


def test_one_image_has_no_interval_however_often_it_occurs() -> None:
    counts = TaskCounts()
    for _ in range(3):
        counts.add(compare(_pair(1, 0.5, 0.6), 0.5))
    found = counts.result(only_in_a=0, only_in_b=0).shifts["score of matched boxes"].shift
    assert (found.low, found.high) == (-math.inf, math.inf)


# ---- the command


@pytest.fixture
def two(tmp_path: Path) -> list[str]:
    answers = [said(CAPTION, BOTH), ONE_CAT, said("a cat", CAT)]
    others = [said(CAPTION, {"a cat": [LEFT_TOO]}), ONE_CAT, said("the cat", {"cat": [LEFT]})]
    versions(tmp_path, answers, others)
    return [str(tmp_path / side / "out") for side in "ab"]


@pytest.mark.parametrize(("most", "code"), [("0.5", 6), ("0.67", 0)])
def test_it_fails_if_more_differs_than_allowed(
    two: list[str], most: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["diff", *two, "--fail-above", most]) == code
    said_by = capsys.readouterr()
    assert "66.67% of the annotations differ" in said_by.out
    assert ("more than 50.00%" in said_by.err) is (code == 6)


def test_figures_come_as_json(two: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["diff", *two, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["share_different"] == pytest.approx(2 / 3)
    assert found["tasks"]["brief"]["boxes_lost"] == 1
    assert found["tasks"]["brief"]["shifts"]["boxes per annotation"]["shift"]["value"] < 0


def test_python_has_the_same_figures(two: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    a, b = map(Dataset.open, two)
    assert run_command(["diff", *two, "--json"]) == 0
    found = a.diff(b)
    assert json.loads(json.dumps(asdict(found))) == json.loads(capsys.readouterr().out)
    assert a.diff(b, least_iou=1).tasks["brief"].boxes_lost > found.tasks["brief"].boxes_lost
    assert a.diff(a).share_different == 0
    with pytest.raises(SpecError, match=r"is 1\.5; give one from 0 to 1"):
        a.diff(b, least_iou=1.5)


def test_phrases_and_names_do_not_control_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    hostile = "[bold]a\x1b[2j cat[/bold]"
    answers = [said(hostile, {hostile: [LEFT]})]
    versions(tmp_path / "[red]", answers, answers)
    places = [str(tmp_path / "[red]" / side / "out") for side in "ab"]
    assert run_command(["stats", places[0]]) == 0
    assert r"[bold]a\u001b[2j cat[/bold]" in capsys.readouterr().out
    assert run_command(["diff", *places]) == 0
    assert "[red]/a/out" in capsys.readouterr().out


def test_a_phrase_has_the_same_colour_in_both_answers(tmp_path: Path, browser: Page) -> None:
    """Also if it is not the same one in order, and the other ones have colours of their own."""
    a = said("a dog and a cat", {"a dog": [RIGHT], "a cat": [LEFT]})
    b = said("a cat and a hat", {"a cat": [LEFT], "a hat": [RIGHT]})
    versions(tmp_path, [a], [b])
    path = tmp_path / "diff.html"
    places = [str(tmp_path / side / "out") for side in "ab"]
    assert run_command(["diff", *places, "--html", str(path)]) == 0
    with visiting(browser) as visit:
        visit.open(path)
        marks = visit.page.locator("mark").all()
        said_by = [(each.text_content(), each.get_attribute("class")) for each in marks]
        assert said_by == [("a dog", "c0"), ("a cat", "c1"), ("a cat", "c1"), ("a hat", "c2")]


def test_a_browser_shows_each_image_twice_with_the_boxes_of_both(
    two: list[str], tmp_path: Path, browser: Page
) -> None:
    path = tmp_path / "diff.html"
    assert run_command(["diff", *two, "--html", str(path)]) == 0
    with visiting(browser) as visit:
        visit.open(path)
        page = visit.page
        assert page.locator("#found").text_content() == "2 of 2 differences"
        pairs = page.locator("section.beside")
        assert pairs.count() == 2
        first = pairs.nth(0)
        assert first.locator("h2").all_text_contents() == ["A", "B"]
        assert first.locator("image").count() == 2
        assert [
            sorted(box.get_attribute("class") or "" for box in figure.locator("rect").all())
            for figure in first.locator("figure").all()
        ] == [["c0 moved", "c1 lost"], ["c0 moved"]]
        page.locator("[name=phrase]").fill("the cat")
        assert page.locator("#found").text_content() == "0 of 2 differences"
        page.locator("[name=phrase]").fill("dog")
        assert page.locator("#found").text_content() == "1 of 2 differences"
        for size in (PHONE, DESKTOP):
            visit.resize(size)
            assert not visit.is_wider_than_the_screen()
            for shown in ("figure", "image", "rect", "mark", "figcaption"):
                visit.assert_in_view(shown)
