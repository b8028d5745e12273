"""Kosmos-2 as a plain library: images in, grounded annotations out.

Names are imported on first use, so a program that only reads annotations does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kosmos2_core.annotation import Annotation, Box, Entity, Grounding, Issue
    from kosmos2_core.annotator import Annotator
    from kosmos2_core.checkpoint.load import Checkpoint, Provenance, load_checkpoint
    from kosmos2_core.errors import (
        AnnotationError,
        CheckpointError,
        ImageError,
        KosmosError,
        UnknownTask,
    )
    from kosmos2_core.generation import Generation
    from kosmos2_core.grounding.parser import parse_text
    from kosmos2_core.images.decode import DecodedImage, decode_image
    from kosmos2_core.prompts.tasks import TASKS, Task

_MODULES = {
    "annotation": ("Annotation", "Box", "Entity", "Grounding", "Issue"),
    "annotator": ("Annotator",),
    "checkpoint.load": ("Checkpoint", "Provenance", "load_checkpoint"),
    "errors": ("AnnotationError", "CheckpointError", "ImageError", "KosmosError", "UnknownTask"),
    "generation": ("Generation",),
    "grounding.parser": ("parse_text",),
    "images.decode": ("DecodedImage", "decode_image"),
    "prompts.tasks": ("TASKS", "Task"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "TASKS",
    "Annotation",
    "AnnotationError",
    "Annotator",
    "Box",
    "Checkpoint",
    "CheckpointError",
    "DecodedImage",
    "Entity",
    "Generation",
    "Grounding",
    "ImageError",
    "Issue",
    "KosmosError",
    "Provenance",
    "Task",
    "UnknownTask",
    "decode_image",
    "load_checkpoint",
    "parse_text",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
