"""An annotator for callers in several threads."""

from collections.abc import Sequence

import numpy as np

from kosmos2_core.annotator import Annotator
from kosmos2_core.answers import Answer
from kosmos2_core.engine.requests import Generates
from kosmos2_core.engine.shared_engine import SharedEngine, Usage
from kosmos2_core.engine.vitals import Vitals
from kosmos2_core.prompts.tasks import Task
from kosmos2_core.prompts.text import PromptFields


class SharedAnnotator:
    """Annotate for several threads with one engine, which batches the images of all calls.

    `engine` replaces the engine of `annotator`.
    """

    def __init__(self, annotator: Annotator, engine: Generates | None = None) -> None:
        self._engine = SharedEngine(engine or annotator.engine)
        self._annotator = Annotator(annotator.checkpoint, annotator.generation, engine=self._engine)

    def answer_pixels(
        self,
        pixels: np.ndarray,
        tasks: Sequence[Task],
        fields: Sequence[Sequence[PromptFields]] | None = None,
    ) -> list[tuple[Answer, ...]]:
        """Answer as `Annotator.answer_pixels`, from any thread.

        Raises EngineFailed if the engine failed in this or an earlier call.
        """
        return self._annotator.answer_pixels(pixels, tasks, fields)

    @property
    def usage(self) -> Usage:
        return self._engine.usage

    @property
    def vitals(self) -> Vitals:
        return self._engine.vitals
