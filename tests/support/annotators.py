"""What stands in for a model, and for the marks of a cluster."""

from collections.abc import Sequence

import numpy as np

from kosmos2_core.annotation import Annotation
from kosmos2_core.engine.shared_engine import Usage
from kosmos2_core.engine.vitals import Vitals
from kosmos2_core.errors import AnnotationError, NonFiniteLogits
from kosmos2_core.prompts.tasks import Task
from kosmos2_core.prompts.text import PromptFields
from tests.support.tars import an_annotation


class Answering:
    """Says of each image how bright it is; cannot annotate one of brightness 13 in detail."""

    usage = Usage(busy_s=3.0, span_s=4.0)
    vitals = Vitals(slots=2)

    def answer_pixels(
        self, pixels: np.ndarray, tasks: Sequence[Task], fields: Sequence[Sequence[PromptFields]]
    ) -> list[tuple[Annotation | AnnotationError, ...]]:
        self.fields = fields
        assert pixels.dtype == np.uint8
        assert pixels.shape[1:] == (3, 224, 224)
        return [tuple(self._answer(image.max(), task.name) for task in tasks) for image in pixels]

    def _answer(self, brightness: int, task: str) -> Annotation | AnnotationError:
        if (brightness, task) == (13, "detailed"):
            return NonFiniteLogits("not finite")
        return an_annotation(task, caption=f"brightness {brightness}", entities=())


class SetOfMarks(set[str]):
    """Marks of one process."""

    def has(self, name: str) -> bool:
        return name in self
