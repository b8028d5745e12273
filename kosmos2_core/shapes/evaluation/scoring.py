"""Whether an annotation is right, object by object."""

from collections.abc import Sequence
from dataclasses import dataclass

from kosmos2_core.annotation import Entity, Grounding
from kosmos2_core.grounding.grid import RIGHT_IOU, area, box_of, cells_of, iou
from kosmos2_core.shapes.world.scenes import Scene


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One object of a scene: `iou` of its box where its phrase was said, else 0; `ceiling` the
    IoU of its box as the grid can say it; `side` the geometric mean of its sides, as a share;
    `is_one_of_two` of its kind."""

    iou: float
    ceiling: float
    side: float
    objects_in_scene: int
    is_one_of_two: bool

    @property
    def is_right(self) -> bool:
        return self.iou >= RIGHT_IOU


def judge(scene: Scene, entities: Sequence[Entity]) -> list[Judged]:
    """Several boxes of one phrase count in their order from left to right."""
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
    """The same words, the same phrases grounded, each in as many boxes, all of IoU >= 0.5."""
    if truth.caption != said.caption or len(truth.entities) != len(said.entities):
        return False
    return all(
        a.phrase == b.phrase
        and len(a.boxes) == len(b.boxes)
        and all(iou(p.xyxy, q.xyxy) >= RIGHT_IOU for p, q in zip(a.boxes, b.boxes, strict=True))
        for a, b in zip(truth.entities, said.entities, strict=True)
    )
