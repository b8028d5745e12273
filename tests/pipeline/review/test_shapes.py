"""The review loop on hard drawn scenes, with the truth as the judge.

The scenes of the hard split are too few to measure the error of calibrated scores: more of the same
kind follow them, by the same seed.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kosmos2_core.annotation import Annotation
from kosmos2_core.annotator import Annotator
from kosmos2_core.shapes.evaluation.hard import SCENES, SEED, hard_captions, judged_boxes
from kosmos2_core.shapes.world.ranges import HARD_WORLD
from kosmos2_core.shapes.world.scenes import Scene
from kosmos2_core.shapes.world.shards import choose_quality, encode_jpeg
from pipeline.review.answers import read_answers
from pipeline.review.curve import Curve
from pipeline.review.judgements import curve_of, keep_review, people_boxes
from pipeline.review.options import SampleBy, SampleOptions
from pipeline.review.precision import precision_report
from pipeline.review.sampling import choose_boxes
from pipeline.review.tasks import write_tasks
from pipeline.storage import InputStore, open_output
from tests.support.commits import write_dataset
from tests.support.label_studio import Task, answered, tasks_in
from tests.support.reliability import reliability_error

Captions = list[tuple[int, Scene, Annotation]]
FEW, MANY = 90, 5 * SCENES


@cache
def captions_of(scenes: int) -> Captions:
    annotator = Annotator.from_pretrained("shapes", device="cpu")
    found = hard_captions(annotator, scenes)
    return [(number, scene, said) for number, (scene, said) in enumerate(found)]


def rights(captions: Captions) -> dict[tuple[int, int, int], bool]:
    """Tell for each box if it is right, by the place of its scene, its entity and its own place."""
    found = {}
    for place, (number, scene, said) in enumerate(captions):
        places = [
            (i, j) for i, entity in enumerate(said.entities) for j in range(len(entity.boxes))
        ]
        for (i, j), box in zip(places, judged_boxes(number, scene, said), strict=True):
            found[place, i, j] = box.is_entity_right
    return found


def reviewed(folder: Path, captions: Captions, by: SampleBy, count: int) -> Any:
    """The store of a dataset of these captions, some boxes of which the truth has judged."""
    images = [
        (f"{place:04d}.jpg", encode_jpeg(scene, choose_quality(SEED, number, HARD_WORLD)))
        for place, (number, scene, _) in enumerate(captions)
    ]
    dataset = write_dataset(folder, {"a.tar": (images, [[said] for _, _, said in captions])})
    [shard] = dataset.plan.shards
    chosen = choose_boxes(dataset.store, [shard.shard_id], by=by, count=count, seed=0)
    write_tasks(
        dataset, InputStore(), open_output(str(folder / "judge")), chosen, SampleOptions(by=by)
    )
    truth = rights(captions)

    def say(task: Task, box: dict[str, Any]) -> str:
        return "keep" if truth[task["data"]["index"], box["entity"], box["box"]] else "delete"

    answers = folder / "answers.json"
    answers.write_text(json.dumps(answered(tasks_in(folder / "judge"), say)))
    assert keep_review(dataset.store, read_answers(answers, dataset.record.fingerprint).review)
    return dataset.store


def errors_on(captions: Captions, curve: Curve) -> tuple[float, float]:
    """The reliability error of the scores as they are, and of the calibrated ones."""
    boxes = [box for number, scene, said in captions for box in judged_boxes(number, scene, said)]
    truth = [float(box.is_entity_right) for box in boxes]
    calibrated = [curve(box.score) for box in boxes]
    return (
        reliability_error([box.score for box in boxes], truth),
        reliability_error(calibrated, truth),
    )


def errors_on_halves(scenes: int, folder: Path) -> list[tuple[float, float]]:
    """`errors_on` each half of the scenes, if all boxes of the other half are judged."""
    captions, found = captions_of(scenes), []
    for half in (0, 1):
        store = reviewed(folder / str(half), captions[half::2], "random", 10_000)
        found.append(errors_on(captions[1 - half :: 2], curve_of(store)))
    print(f"{scenes} scenes, before and after, on each half: {found}")
    return found


def test_judgements_of_one_half_reduce_the_error_on_the_other(tmp_path: Path) -> None:
    found = errors_on_halves(FEW, tmp_path)
    assert all(calibrated < 2 / 3 * raw for raw, calibrated in found)


@pytest.mark.slow
def test_calibrated_scores_are_reliable_on_the_other_half(tmp_path: Path) -> None:
    found = errors_on_halves(MANY, tmp_path)
    assert all(calibrated <= 0.03 for _, calibrated in found)
    assert all(calibrated < raw / 4 for raw, calibrated in found)


@pytest.mark.slow
def test_the_measurement_could_tell_a_score_that_is_off(tmp_path: Path) -> None:
    """On so many boxes a perfect score stays below the bound, and one that is off does not."""
    captions = captions_of(MANY)[1::2]
    curve = curve_of(reviewed(tmp_path, captions, "random", 10_000))
    boxes = [box for number, scene, said in captions for box in judged_boxes(number, scene, said)]
    probabilities = [curve(box.score) for box in boxes]
    draws = np.random.default_rng(0)
    errors = [
        reliability_error(probabilities, (draws.random(len(boxes)) < probabilities).astype(float))
        for _ in range(200)
    ]
    print(f"{len(boxes)} boxes of a perfect score: {np.mean(errors):.4f}")
    assert max(errors) < 0.03
    off = [min(p + 0.04, 1.0) for p in probabilities]
    assert reliability_error(off, [float(box.is_entity_right) for box in boxes]) > 0.03


@pytest.mark.slow
@pytest.mark.parametrize("by", ["random", "uncertain"])
def test_a_part_of_the_boxes_tells_the_precision_of_all(by: SampleBy, tmp_path: Path) -> None:
    captions = captions_of(SCENES)
    whole = precision_report(people_boxes(reviewed(tmp_path, captions, by, 300))).whole
    truth = rights(captions)
    print(f"{by}: {whole}, of all {sum(truth.values()) / len(truth):.3f}")
    assert whole.boxes == 300
    assert whole.low <= sum(truth.values()) / len(truth) <= whole.high
