import hashlib
from dataclasses import replace

import pytest

from kosmos2_core.annotation import Box, Entity, Grounding
from kosmos2_core.errors import CheckpointError
from kosmos2_core.shapes.evaluation.evaluate import evaluate_checkpoint
from kosmos2_core.shapes.evaluation.hard import (
    SCENES,
    SEED,
    ScoredBox,
    auc_table,
    discrimination,
    judged_boxes,
)
from kosmos2_core.shapes.world.ranges import HARD_WORLD
from kosmos2_core.shapes.world.scenes import make_scene
from tests.support.checkpoints import random_checkpoint

FROZEN = "7a7777717bfe5073f7cff1a45f1efaf714210b45fb60c1daddfc8b142bc22c2f"


def truth_of(index):
    scene = make_scene(SEED, index, width=32, height=32, world=HARD_WORLD)
    boxes = [[f"{side:.6f}" for side in item.box] for item in scene.objects]
    return f"{scene.caption} {boxes}\n"


def test_split_is_frozen():
    """The score was chosen on these scenes. Other scenes would need a new choice."""
    digest = hashlib.sha256("".join(map(truth_of, range(SCENES))).encode()).hexdigest()
    assert digest == FROZEN


def test_split_is_large_enough():
    scenes = (
        make_scene(SEED, index, width=32, height=32, world=HARD_WORLD) for index in range(SCENES)
    )
    assert sum(len(scene.objects) for scene in scenes) >= 1500


@pytest.fixture(scope="module")
def scene():
    return make_scene(SEED, 0, width=32, height=32, world=HARD_WORLD)


def said(phrase, *boxes):
    made = [
        Box(x1=x1, y1=y1, x2=x2, y2=y2, ul=0, lr=0, score=0.5, logp=-1.0, consistency=0.7)
        for x1, y1, x2, y2 in boxes
    ]
    entity = Entity(phrase=phrase, start=0, end=len(phrase), boxes=tuple(made), phrase_logprob=-0.1)
    return Grounding(caption=phrase, entities=(entity,), issues=())


def test_a_box_may_be_right_where_its_phrase_is_not(scene):
    item, other = scene.objects[:2]
    assert item.phrase != other.phrase
    found = [
        (box.is_box_right, box.is_entity_right)
        for grounding in (
            said(item.phrase, item.box),
            said(other.phrase, item.box),
            said("a dog", item.box),
            said(item.phrase, (0.0, 0.0, 0.001, 0.001)),
        )
        for box in judged_boxes(0, scene, grounding)
    ]
    assert found == [(True, True), (True, False), (True, False), (False, False)]


def test_each_box_of_a_phrase_counts_for_itself(scene):
    item = scene.objects[0]
    boxes = list(judged_boxes(3, scene, said(item.phrase, item.box, (0.0, 0.0, 0.001, 0.001))))
    assert [box.is_entity_right for box in boxes] == [True, False]
    for box in boxes:
        assert (box.scene, box.score, box.logp) == (3, 0.5, -1.0)
        assert (box.consistency, box.phrase_logprob) == (0.7, -0.1)


def test_table_ranks_a_score_that_knows_above_one_that_does_not():
    made = ScoredBox(
        scene=0,
        score=0.5,
        logp=-1.0,
        consistency=0.7,
        phrase_logprob=-0.1,
        is_box_right=True,
        is_entity_right=True,
    )
    boxes = [
        replace(made, scene=at, score=0.9 if at % 2 else 0.1, is_entity_right=bool(at % 2))
        for at in range(40)
    ]
    areas = {(row.truth, row.score): row.auc for row in discrimination(boxes)}
    assert areas["entity right", "score"].value == 1
    assert areas["entity right", "logp"].value == 0.5
    assert "entity right  (20 are not)  score" in auc_table(boxes)


def test_a_checkpoint_of_other_words_is_refused(tmp_path):
    directory = random_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="not have the vocabulary of the shapes world"):
        evaluate_checkpoint(directory, scenes=1)
