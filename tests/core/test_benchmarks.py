"""Public benchmarks: what their files ask, and how answers are scored, against pycocotools too."""

import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from kosmos2_core.annotation import Annotation, Box, Entity
from kosmos2_core.benchmarks.queries import (
    GROUND_NEXT,
    Query,
    by_image,
    flickr30k_queries,
    refcoco_queries,
)
from kosmos2_core.benchmarks.recall import QueryResult, query_result, recall, reliability
from kosmos2_core.grounding.grid import XYXY, iou
from kosmos2_core.prompts.tasks import GROUND
from kosmos2_core.prompts.text import prompt_text
from tests.support.tars import an_annotation

CAPTION = "A man and two dogs on the beach"


def entry(**changes: Any) -> dict[str, Any]:
    return {
        **{"id": 7, "file_name": "1.jpg", "width": 200, "height": 100, "caption": CAPTION},
        **changes,
    }


def written(folder: Path, images: Any, annotations: Any) -> Path:
    path = folder / "annotations.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path


def annotated(span: tuple[int, int], *box: float) -> dict[str, Any]:
    return {"image_id": 7, "bbox": list(box), "tokens_positive": [list(span)]}


MAN, DOGS, BEACH = (0, 5), (10, 18), (22, 31)


# ---- what is asked


@pytest.mark.parametrize("has_list", [True, False])
def test_phrases_are_asked_for_after_what_the_caption_says_first(
    has_list: bool, tmp_path: Path
) -> None:
    listed = {"tokens_positive_eval": [[MAN], [DOGS], [BEACH]]} if has_list else {}
    boxes = [annotated(MAN, 0, 0, 100, 50), annotated(DOGS, 100, 50, 50, 50)]
    boxes.append(annotated(DOGS, 20, 10, 20, 10))
    man, dogs = flickr30k_queries(written(tmp_path, [entry(**listed)], boxes))
    # The beach has no box: nothing to be right about.
    assert (man.before, man.phrase, man.truth) == ("", "A man", ((0, 0, 0.5, 0.5),))
    assert (dogs.before, dogs.phrase) == ("A man and", "two dogs")
    assert dogs.truth == ((0.5, 0.5, 0.75, 1.0), (0.1, 0.1, 0.2, 0.2))
    assert prompt_text(man.task, man.fields) == "<grounding><phrase> A man</phrase>"
    assert prompt_text(dogs.task, dogs.fields) == "<grounding>A man and<phrase> two dogs</phrase>"
    assert (man.task, dogs.task) == (GROUND, GROUND_NEXT)


def test_an_expression_is_the_whole_caption(tmp_path: Path) -> None:
    path = written(tmp_path, [entry()], [annotated((0, 31), 50, 25, 100, 50)])
    (query,) = refcoco_queries(path)
    assert (query.before, query.phrase, query.truth) == ("", CAPTION, ((0.25, 0.25, 0.75, 0.75),))


def test_queries_of_an_image_come_together(tmp_path: Path) -> None:
    images = [entry(), entry(id=8, file_name="2.jpg"), entry(id=9)]
    boxes = [{**annotated(MAN, 0, 0, 10, 10), "image_id": number} for number in (7, 8, 9)]
    groups = by_image(flickr30k_queries(written(tmp_path, images, boxes)))
    assert {name: len(queries) for name, queries in groups.items()} == {"1.jpg": 2, "2.jpg": 1}


@pytest.mark.parametrize(
    ("images", "annotations", "told"),
    [
        ([entry()], [{"image_id": 7, "bbox": [0, 0, 1, 1]}], "not an annotation file.*tokens_pos"),
        ([{"id": 7}], [annotated(MAN, 0, 0, 1, 1)], "KeyError: 'caption'"),
        ([entry()], [annotated((5, 99), 0, 0, 1, 1)], "5..99 is not a span of the caption"),
        ([entry()], [annotated(MAN, 0, 0, 0, 1)], "no area"),
        ([entry()], [], "no phrase in .* has a box"),
        (None, [], "not an annotation file"),
    ],
)
def test_a_file_of_another_kind_is_refused(
    images: Any, annotations: Any, told: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=told):
        flickr30k_queries(written(tmp_path, images, annotations))


# ---- scoring by hand


def a_box(*corners: float, score: float | None = 0.5, source: Any = "model") -> Box:
    x1, y1, x2, y2 = corners
    return Box(x1=x1, y1=y1, x2=x2, y2=y2, ul=0, lr=0, score=score, source=source)


def answer(boxes: list[Box], phrase: str = "two dogs") -> Annotation:
    entity = Entity(phrase=phrase, start=0, end=len(phrase), boxes=tuple(boxes))
    return an_annotation(caption=phrase, prompt_chars=0, entities=(entity,))


LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)
ASKED = Query(file_name="1.jpg", before="", phrase="two dogs", truth=(LEFT, (0.5, 0.5, 1.0, 1.0)))


@pytest.mark.parametrize(
    ("boxes", "ious", "right_within"),
    [
        ([LEFT], (1.0,), 1),
        ([RIGHT], (0.5,), 1),  # half of it is one of those that would do
        ([(0.6, 0.0, 1.0, 0.5), LEFT], (0.0, 1.0), 2),
        ([(0.0, 0.0, 0.2, 1.0)] * 5 + [LEFT], (0.4,) * 5 + (1.0,), 6),
        ([], (), None),
    ],
)
def test_the_first_k_boxes_count(
    boxes: list[XYXY], ious: tuple[float, ...], right_within: int | None
) -> None:
    judged = query_result(ASKED, answer([a_box(*box) for box in boxes]))
    assert judged.ious == pytest.approx(ious)
    for k in range(1, 12):
        assert judged.is_right(k) == (right_within is not None and k >= right_within)
    assert judged.is_right() == (right_within is not None)


def test_only_boxes_of_the_phrase_that_the_model_gave_count() -> None:
    assert query_result(ASKED, answer([a_box(*LEFT)], "a dog")).ious == ()
    assert query_result(ASKED, answer([a_box(*LEFT, score=None, source="prompt")])).ious == ()
    assert query_result(ASKED, answer([a_box(*LEFT, score=0.25), a_box(*LEFT)])).score == 0.25


def test_a_phrase_without_a_box_is_missed() -> None:
    found = [QueryResult(ious=(0.6,), score=0.9), QueryResult(ious=(), score=None)]
    assert (recall(found, 1), recall(found, None)) == (0.5, 0.5)


def test_reliability_is_that_of_the_first_boxes() -> None:
    found = [
        *[QueryResult(ious=(1.0,), score=0.75)] * 3,
        QueryResult(ious=(0.0, 1.0), score=0.75),
        QueryResult(ious=(0.2,), score=1.0),
        QueryResult(ious=(), score=None),
    ]
    told = reliability(found)
    assert [(b.low, b.count, b.score, b.right) for b in told.bins] == [
        (0.7, 4, 0.75, 0.75),
        (0.9, 1, 1.0, 0.0),
    ]
    assert told.error == pytest.approx(0.2)
    assert reliability([]).bins == ()


# ---- against pycocotools


def drawn_boxes(draw: np.random.Generator, count: int) -> list[XYXY]:
    low = draw.uniform(0, 0.6, (count, 2))
    high = low + draw.uniform(0.05, 0.4, (count, 2))
    return [(*map(float, a), *map(float, b)) for a, b in zip(low, high, strict=True)]


def xywh(box: XYXY) -> list[float]:
    return [box[0] * 1000, box[1] * 1000, (box[2] - box[0]) * 1000, (box[3] - box[1]) * 1000]


def test_overlaps_are_those_of_pycocotools() -> None:
    draw = np.random.default_rng(2)
    some, others = drawn_boxes(draw, 40), drawn_boxes(draw, 30)
    theirs = mask.iou([xywh(a) for a in some], [xywh(b) for b in others], [0] * len(others))
    ours = [[iou(a, b) for b in others] for a in some]
    assert np.allclose(ours, theirs, atol=1e-9)


@pytest.mark.parametrize("k", [1, 5, 10])
def test_recall_of_one_box_each_is_that_of_pycocotools(k: int) -> None:
    """With one box per phrase and descending scores both give the same recall."""
    draw = np.random.default_rng(3)
    truths = drawn_boxes(draw, 150)
    said = [
        [*drawn_boxes(draw, int(draw.integers(0, 12))), *([truth] if draw.random() < 0.5 else [])]
        for truth in truths
    ]
    for boxes in said:
        draw.shuffle(boxes)
    judged = [
        query_result(
            Query(file_name="", before="", phrase="two dogs", truth=(truth,)),
            answer([a_box(*box) for box in boxes]),
        )
        for truth, boxes in zip(truths, said, strict=True)
    ]
    assert recall(judged, k) == pytest.approx(recall_of_pycocotools(truths, said, k))
    assert 0.1 < recall(judged, k) < 0.9


def recall_of_pycocotools(truths: list[XYXY], said: list[list[XYXY]], k: int) -> float:
    with redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": i + 1} for i in range(len(truths))],
            "categories": [{"id": 1, "name": "object"}],
            "annotations": [
                {
                    **{"id": i + 1, "image_id": i + 1, "category_id": 1, "iscrowd": 0},
                    **{"bbox": xywh(box), "area": 1.0},
                }
                for i, box in enumerate(truths)
            ],
        }
        coco.createIndex()
        results = [
            {"image_id": i + 1, "category_id": 1, "bbox": xywh(box), "score": 1 - 0.01 * place}
            for i, boxes in enumerate(said)
            for place, box in enumerate(boxes)
        ]
        found = COCOeval(coco, coco.loadRes(results), "bbox")
        found.params.iouThrs = np.array([0.5])
        found.params.maxDets = [k]
        found.params.areaRng, found.params.areaRngLbl = [[0, 1e10]], ["all"]
        found.evaluate()
        found.accumulate()
    return float(found.eval["recall"][0, 0, 0, 0])
