"""Models that only wait, as for a device, and give one fixed answer.

`LightModel` replaces the whole annotator and needs no torch: many fit on one machine. `PacedModel`
replaces the engine only.
"""

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from kosmos2_core.annotation import Annotation
from kosmos2_core.engine.requests import Completion, Request
from kosmos2_core.engine.shared_engine import Usage
from kosmos2_core.engine.vitals import Vitals
from kosmos2_core.grounding.parser import parse_text
from kosmos2_core.grounding.scores import TokenScores
from kosmos2_core.prompts.tasks import Task
from kosmos2_core.prompts.text import PromptFields
from pipeline.dataset.dataset import settle_record
from pipeline.execution.model import LoadedModel, load_annotator, resolved_model
from pipeline.spec.identity import ResolvedModel
from pipeline.spec.job import JobSpec
from pipeline.storage import open_output

if TYPE_CHECKING:
    from kosmos2_core.checkpoint.load import Checkpoint

PACED_SLOTS = 16
MEAN_STEPS = 30
_ANSWER = (
    "<phrase> a red square</phrase><object><patch_index_0132><patch_index_0331></object> and"
    "<phrase> a cyan star</phrase><object><patch_index_0494><patch_index_0700></object>."
)
_LIGHT = ResolvedModel(
    id="light",
    commit=None,
    weights_digest="0" * 64,
    device="cpu",
    dtype="float32",
    no_repeat_ngram_size=0,
    slots=16,
)
_END = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class LightModel:
    """Loads, in an actor, a device that waits `image_cost_s` for each answer."""

    image_cost_s: float

    def __call__(self, spec: JobSpec) -> LoadedModel:
        return LoadedModel(model=LightDevice(self.image_cost_s), resolved=_LIGHT)


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
    parsed = parse_text(f"{task.prompt}{_ANSWER}")
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


@dataclass(frozen=True, slots=True, kw_only=True)
class PacedModel:
    """Loads, in an actor, an annotator whose engine waits `image_cost_s` for each image."""

    image_cost_s: float

    def __call__(self, spec: JobSpec) -> LoadedModel:
        from kosmos2_core.shared_annotator import SharedAnnotator

        annotator = load_annotator(spec)
        engine = PacedEngine(annotator.checkpoint, self.image_cost_s)
        return LoadedModel(
            model=SharedAnnotator(annotator, engine), resolved=resolved_model(annotator)
        )


class PacedEngine:
    """Continuous batching in `PACED_SLOTS` slots.

    A step takes the same time for any number of slots in use, as on a GPU. An image costs
    `image_cost_s` when all slots are in use all the time.
    """

    def __init__(self, checkpoint: "Checkpoint", image_cost_s: float) -> None:
        tokenizer = checkpoint.processor.tokenizer
        ids = tokenizer(_ANSWER, add_special_tokens=False)["input_ids"]
        self._token_ids = (*ids, tokenizer.eos_token_id)
        self._step_s = image_cost_s * PACED_SLOTS / MEAN_STEPS
        self.vitals = Vitals(slots=PACED_SLOTS)

    def generate(self, requests: Iterable[Request | None]) -> Iterator[Completion]:
        """Answer requests of one prompt each, as `Engine.generate` does."""
        stream, lengths = iter(requests), _lengths()
        live: list[tuple[int, Request]] = []  # with the step that is its last
        request: object = None
        for step in count():
            while len(live) < PACED_SLOTS and isinstance(request := next(stream, _END), Request):
                live.append((step + next(lengths), request))
            if not live and request is _END:
                return
            if live:
                time.sleep(self._step_s)
            self.vitals = Vitals(slots=PACED_SLOTS, live=len(live))
            yield from (self._completion(done) for last, done in live if last == step)
            live = [(last, request) for last, request in live if last > step]

    def _completion(self, request: Request) -> Completion:
        (prompt,) = request.prompts
        return Completion(
            request_id=request.id,
            index=0,
            task=prompt.task,
            token_ids=self._token_ids,
            scores=TokenScores.uniform(len(self._token_ids), logprob=-0.1, mass=0.9),
            finish_reason="eos",
            sender=request.sender,
        )


def _lengths() -> Iterator[int]:
    """Yield 1 to 59 steps in a fixed disorder, `MEAN_STEPS` on average."""
    return (7 * number % (2 * MEAN_STEPS - 1) for number in count())
