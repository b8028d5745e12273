"""The self-check: ground each phrase of a caption again on its own and compare the boxes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from kosmos2_core.annotation import Annotation, Box, Entity
from kosmos2_core.grounding.grid import iou


def phrases_to_check(annotations: Iterable[Annotation]) -> list[str]:
    """Return the phrases that the model generated with boxes, each once, in order."""
    said = (
        entity.phrase
        for annotation in annotations
        for entity in annotation.entities
        if _is_generated(entity)
    )
    return list(dict.fromkeys(said))


def with_consistency(annotation: Annotation, grounded: Mapping[str, Sequence[Box]]) -> Annotation:
    """Set the `consistency` of boxes from `grounded`: phrase -> its boxes when grounded alone.

    It is the IoU with the best of these boxes, 0 if there are none, and None for a phrase that is
    not in `grounded`.
    """
    entities = tuple(_checked(entity, grounded) for entity in annotation.entities)
    return replace(annotation, entities=entities)


def _checked(entity: Entity, grounded: Mapping[str, Sequence[Box]]) -> Entity:
    if not _is_generated(entity) or entity.phrase not in grounded:
        return entity
    again = grounded[entity.phrase]
    boxes = (
        replace(box, consistency=max((iou(box.xyxy, other.xyxy) for other in again), default=0.0))
        for box in entity.boxes
    )
    return replace(entity, boxes=tuple(boxes))


def _is_generated(entity: Entity) -> bool:
    return entity.phrase_logprob is not None and entity.boxes[0].source == "model"
