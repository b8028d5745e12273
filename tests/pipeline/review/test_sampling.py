"""The choice of boxes to be judged, and its probabilities."""

import io
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from pipeline.dataset.dataset import StoredDataset
from pipeline.review import sampling
from pipeline.review.options import SampleBy
from pipeline.review.sampling import ChosenBox, allocate, choose_boxes
from tests.support.commits import write_dataset
from tests.support.export_dataset import BRIEF, a_box, answer
from tests.support.tars import pictures

IMAGES = 40


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> StoredDataset:
    """Two shards of captions with two scored boxes and one of the prompt; a quarter has a flag."""

    def said(number: int) -> object:
        score = (number % IMAGES) / IMAGES
        boxes = {
            "a cat": [a_box(0, 0, 0.5, 0.5, score=score), a_box(0.5, 0, 1, 0.5, score=0.99)],
            "a dog": [a_box(0, 0.5, 0.5, 1, score=None, source="prompt")],
        }
        issues = ("truncated",) if number % 4 == 0 else ()
        return answer(BRIEF, "a cat and a dog.", boxes, issues=issues)

    answers = [[said(number)] for number in range(IMAGES)]
    buffer = io.BytesIO()
    Image.new("RGB", (240, 240)).save(buffer, "PNG")  # not so small that it has a flag
    images = [(f"{number:02d}.png", buffer.getvalue()) for number in range(IMAGES)]
    shards = dict.fromkeys(("a.tar", "b.tar"), (images, answers))
    return write_dataset(tmp_path_factory.mktemp("sampling"), shards)


def chosen(dataset: StoredDataset, by: SampleBy, count: int, seed: int = 0) -> list[ChosenBox]:
    shards = [shard.shard_id for shard in dataset.plan.shards]
    return choose_boxes(dataset.store, shards, by=by, count=count, seed=seed)


@pytest.mark.parametrize("by", ["random", "uncertain", "flag"])
def test_boxes_stand_for_all_boxes(by: SampleBy, dataset: StoredDataset) -> None:
    found = chosen(dataset, by, 40)
    assert len(found) == len({each.place for each in found}) == 40
    assert sum(1 / each.probability for each in found) == pytest.approx(4 * IMAGES)


def test_an_estimate_by_any_choice_is_unbiased(
    dataset: StoredDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Estimate the mean score, over many seeds. Without weights, a choice by score is biased."""
    # The id of a shard depends on its folder, which has another name each time.
    monkeypatch.setattr(
        sampling, "_seed_of", lambda shard, seed: int.from_bytes(f"{seed} {shard[0]}".encode())
    )
    truth = (sum(n / IMAGES for n in range(IMAGES)) + IMAGES * 0.99) / (2 * IMAGES)
    for by in ("random", "uncertain", "flag"):
        samples = [chosen(dataset, by, 24, seed) for seed in range(60)]
        means = [
            sum(each.score / each.probability for each in sample) / (4 * IMAGES)
            for sample in samples
        ]
        assert sum(means) / len(means) == pytest.approx(truth, abs=0.02)


def test_uncertain_prefers_scores_in_the_middle(dataset: StoredDataset) -> None:
    bins = Counter(min(int(each.score * 10), 9) for each in chosen(dataset, "uncertain", 40))
    assert bins.keys() == set(range(10))
    assert bins[4] > bins[0]
    assert bins[9] < 40 * (2 * IMAGES + 8) / (4 * IMAGES)  # most boxes are in the last bin


def test_flag_takes_half_of_the_boxes_from_flagged_captions(dataset: StoredDataset) -> None:
    found = chosen(dataset, "flag", 20)
    assert sum(each.place.index % 4 == 0 for each in found) == 10


def test_the_seed_decides(dataset: StoredDataset) -> None:
    assert chosen(dataset, "random", 10, seed=1) == chosen(dataset, "random", 10, seed=1)
    assert chosen(dataset, "random", 10, seed=1) != chosen(dataset, "random", 10, seed=2)


def test_all_boxes_of_the_model_are_chosen_if_there_are_fewer(dataset: StoredDataset) -> None:
    found = chosen(dataset, "uncertain", 10_000)
    assert len(found) == 4 * IMAGES
    assert {each.probability for each in found} == {1.0}
    places = {(each.place.entity, each.place.box) for each in found}
    assert places == {(0, 0), (0, 1)}  # the second entity's box was given in the prompt


def test_no_stratum_gets_more_than_it_has() -> None:
    assert allocate(10, {"a": 1, "b": 3, "c": 100}, {"a": 5, "b": 5, "c": 1}) == {
        "a": 1,
        "b": 3,
        "c": 6,
    }


def test_a_dataset_without_boxes_gives_none(tmp_path: Path) -> None:
    bare = write_dataset(tmp_path, {"a.tar": (pictures(1), [[answer(BRIEF, "nothing.", {})]])})
    assert chosen(bare, "random", 5) == []
