"""Annotation of images for several tasks, shared by the job and the stage."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from kosmos2_core.annotation import Annotation
from kosmos2_core.engine.shared_engine import Usage
from kosmos2_core.engine.vitals import Vitals
from kosmos2_core.errors import AnnotationError
from kosmos2_core.prompts.tasks import Task
from kosmos2_core.prompts.text import PromptFields
from pipeline.spec.tasks import TaskUse


class Model(Protocol):
    """A loaded model that several threads call at once."""

    def answer_pixels(
        self, pixels: np.ndarray, tasks: Sequence[Task], fields: Sequence[Sequence[PromptFields]]
    ) -> Sequence[tuple[Annotation | AnnotationError, ...]]:
        """Return an answer per task for each image; `pixels` is uint8 [N, 3, 224, 224].

        A prompt is made of `fields[image][task]`. Raises EngineFailed.
        """
        ...

    @property
    def usage(self) -> Usage: ...

    @property
    def vitals(self) -> Vitals: ...


class ImageAnnotator:
    """A model and the tasks to run on each image.

    Several threads may call it; their images go through one engine.
    """

    def __init__(self, model: Model, uses: Sequence[TaskUse]) -> None:
        self.model = model
        self.tasks = [use.task for use in uses]
        self._uses = uses
        self.needs_fields = any(use.sources for use in uses)

    def answers(
        self, pixels: np.ndarray, metadata: Sequence[Mapping[str, object]]
    ) -> Sequence[tuple[Annotation | AnnotationError, ...]]:
        """Annotate uint8 [N, 3, 224, 224] and return an answer per image and task.

        `metadata` holds each image's own fields, which prompts are made of. Raises EngineFailed.
        """
        fields = [[use.fields_of(each) for use in self._uses] for each in metadata]
        return self.model.answer_pixels(pixels, self.tasks, fields)
