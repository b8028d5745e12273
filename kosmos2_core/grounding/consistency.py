"""The self-check: each phrase of a caption is grounded again on its own; do the boxes agree?"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from kosmos2_core.annotation import Annotation, Box, Entity
from kosmos2_core.grounding.grid import iou


def phrases_to_check(annotations: Iterable[Annotation]) -> list[str]:
    """Return the phrases that the model itself said and put boxes on, each once, in order."""
    said = (
        entity.phrase
        for annotation in annotations
        for entity in annotation.entities
        if _is_said(entity)
    )
    return list(dict.fromkeys(said))


def with_consistency(annotation: Annotation, grounded: Mapping[str, Sequence[Box]]) -> Annotation:
    """`grounded`: phrase -> its boxes when asked for alone. The `consistency` of a box is its IoU
    with the best of them, 0 where there are none; None where nothing was asked."""
    entities = tuple(_checked(entity, grounded) for entity in annotation.entities)
    return replace(annotation, entities=entities)


def _checked(entity: Entity, grounded: Mapping[str, Sequence[Box]]) -> Entity:
    if not _is_said(entity) or entity.phrase not in grounded:
        return entity
    again = grounded[entity.phrase]
    boxes = (
        replace(box, consistency=max((iou(box.xyxy, other.xyxy) for other in again), default=0.0))
        for box in entity.boxes
    )
    return replace(entity, boxes=tuple(boxes))


def _is_said(entity: Entity) -> bool:
    return entity.phrase_logprob is not None and entity.boxes[0].source == "model"
