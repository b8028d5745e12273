"""Compare an annotation with its scene, object by object."""

from collections.abc import Sequence
from dataclasses import dataclass

from kosmos2_core.annotation import Entity, Grounding
from kosmos2_core.grounding.grid import RIGHT_IOU, area, box_of, cells_of, iou
from kosmos2_core.shapes.world.scenes import Scene


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The result for one object of a scene.

    `iou` is that of its box, 0 if its phrase was not generated. `ceiling` is the IoU of its box
    rounded to the grid. `side` is the geometric mean of its sides, as shares of the image.
    `is_one_of_two` tells whether another object has the same colour and shape.
    """

    iou: float
    ceiling: float
    side: float
    objects_in_scene: int
    is_one_of_two: bool

    @property
    def is_right(self) -> bool:
        return self.iou >= RIGHT_IOU


def judge(scene: Scene, entities: Sequence[Entity]) -> list[Judged]:
    """Judge each object of a scene. Boxes of one phrase are matched from left to right."""
    said = {entity.phrase: [box.xyxy for box in entity.boxes] for entity in reversed(entities)}
    return [
        Judged(
            iou=iou(box, said[phrase][at]) if at < len(said.get(phrase, ())) else 0.0,
            ceiling=iou(box, box_of(*cells_of(box))),
            side=area(box) ** 0.5,
            objects_in_scene=len(scene.objects),
            is_one_of_two=len(boxes) == 2,
        )
        for phrase, boxes in scene.entities
        for at, box in enumerate(boxes)
    ]


def is_same_answer(truth: Grounding, said: Grounding) -> bool:
    """Return whether words, phrases and number of boxes agree, and all boxes (IoU >= 0.5)."""
    if truth.caption != said.caption or len(truth.entities) != len(said.entities):
        return False
    return all(
        a.phrase == b.phrase
        and len(a.boxes) == len(b.boxes)
        and all(iou(p.xyxy, q.xyxy) >= RIGHT_IOU for p, q in zip(a.boxes, b.boxes, strict=True))
        for a, b in zip(truth.entities, said.entities, strict=True)
    )
