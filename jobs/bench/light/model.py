"""A model that only waits, as for a device, and gives one fixed answer. It needs no torch."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kosmos2_core.annotation import Annotation
from kosmos2_core.engine.shared_engine import Usage
from kosmos2_core.engine.vitals import Vitals
from kosmos2_core.grounding.parser import parse_text
from kosmos2_core.prompts.tasks import Task
from kosmos2_core.prompts.text import PromptFields
from pipeline.dataset.dataset import settle_record
from pipeline.execution.model import LoadedModel
from pipeline.spec.identity import ResolvedModel
from pipeline.spec.job import JobSpec
from pipeline.storage import open_output

LIGHT_ANSWER = (
    "<phrase> a red square</phrase><object><patch_index_0132><patch_index_0331></object> and"
    "<phrase> a cyan star</phrase><object><patch_index_0494><patch_index_0700></object>."
)
_SLOTS = 16
_LIGHT = ResolvedModel(
    id="light",
    commit=None,
    weights_digest="0" * 64,
    device="cpu",
    dtype="float32",
    no_repeat_ngram_size=0,
    slots=_SLOTS,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LightModel:
    """Loads, in an actor, a device that waits `image_cost_s` for each answer."""

    image_cost_s: float
    slots: int = _SLOTS

    def __call__(self, spec: JobSpec) -> LoadedModel:
        resolved = _LIGHT.model_copy(update={"slots": self.slots})
        return LoadedModel(model=LightDevice(self.image_cost_s), resolved=resolved)


class LightDevice:
    """Processes one image after another, over all calls. Busy while any call waits."""

    vitals = Vitals()

    def __init__(self, image_cost_s: float) -> None:
        self._image_cost_s = image_cost_s
        self._lock = threading.Lock()
        self._first: float | None = None
        self._free_at = 0.0
        self._taken_s = 0.0

    def answer_pixels(
        self, pixels: np.ndarray, tasks: Sequence[Task], fields: Sequence[Sequence[PromptFields]]
    ) -> list[tuple[Annotation, ...]]:
        cost_s = self._image_cost_s * len(pixels) * len(tasks)
        with self._lock:
            now = time.monotonic()
            self._first = self._first or now
            self._free_at = done = max(now, self._free_at) + cost_s
            self._taken_s += cost_s
        time.sleep(max(done - time.monotonic(), 0))
        return [tuple(map(_annotation, tasks))] * len(pixels)

    @property
    def usage(self) -> Usage:
        with self._lock:
            now = time.monotonic()
            return Usage(
                busy_s=self._taken_s - max(self._free_at - now, 0),
                span_s=now - (self._first or now),
            )


def _annotation(task: Task) -> Annotation:
    parsed = parse_text(f"{task.prompt}{LIGHT_ANSWER}")
    return Annotation(
        task=task.name,
        prompt=task.prompt,
        caption=parsed.caption,
        prompt_chars=0,
        entities=parsed.entities,
        issues=parsed.issues,
        finish_reason="eos",
        token_ids=(10,) * 30,
        token_logprobs=(-0.1,) * 30,
    )


def write_light_record(spec: JobSpec) -> None:
    """Write the `job.json` of a job with a light model, without loading a model."""
    settle_record(open_output(spec.output, spec.output_storage), spec, _LIGHT)
