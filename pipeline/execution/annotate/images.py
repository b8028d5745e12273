"""Images asked for several tasks: the one way to annotate."""

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
    """A loaded model, which several threads call at once."""

    def answer_pixels(
        self, pixels: np.ndarray, tasks: Sequence[Task], fields: Sequence[Sequence[PromptFields]]
    ) -> Sequence[tuple[Annotation | AnnotationError, ...]]:
        """uint8 [N, 3, 224, 224] -> for each image an answer per task, whose prompt is made of
        `fields[image][task]`. Raises EngineFailed."""
        ...

    @property
    def usage(self) -> Usage: ...

    @property
    def vitals(self) -> Vitals: ...


class ImageAnnotator:
    """A model and the tasks that each image is asked for. Safe to use from several threads, whose
    images go through one engine."""

    def __init__(self, model: Model, uses: Sequence[TaskUse]) -> None:
        self.model = model
        self.tasks = [use.task for use in uses]
        self._uses = uses
        self.needs_fields = any(use.sources for use in uses)

    def answers(
        self, pixels: np.ndarray, metadata: Sequence[Mapping[str, object]]
    ) -> Sequence[tuple[Annotation | AnnotationError, ...]]:
        """Annotate uint8 [N, 3, 224, 224], and return an answer per image and task.

        `metadata` hold each image's own fields, of which prompts are made. Raises EngineFailed.
        """
        fields = [[use.fields_of(each) for use in self._uses] for each in metadata]
        return self.model.answer_pixels(pixels, self.tasks, fields)
