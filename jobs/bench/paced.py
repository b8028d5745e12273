"""A model on a device that only takes its time, as a GPU does, and gives one fixed answer."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from jobs.bench.light.model import LIGHT_ANSWER
from kosmos2_core.engine.requests import Completion, Request
from kosmos2_core.engine.shared_engine import Usage
from kosmos2_core.engine.vitals import Vitals
from kosmos2_core.grounding.scores import TokenScores
from kosmos2_core.prompts.tasks import Task
from kosmos2_core.prompts.text import PromptFields
from pipeline.execution.model import LoadedModel, load_annotator, resolved_model
from pipeline.spec.job import JobSpec

if TYPE_CHECKING:
    from kosmos2_core.answers import Answer
    from kosmos2_core.checkpoint.load import Checkpoint
    from kosmos2_core.shared_annotator import SharedAnnotator

PACED_SLOTS = 16
MEAN_STEPS = 30
_END = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class PacedModel:
    """Loads, in an actor, an annotator whose device takes `image_cost_s` for each image."""

    image_cost_s: float
    slots: int = PACED_SLOTS

    def __call__(self, spec: JobSpec) -> LoadedModel:
        from kosmos2_core.shared_annotator import SharedAnnotator

        annotator = load_annotator(spec)
        engine = PacedEngine(annotator.checkpoint, self.image_cost_s, self.slots)
        shared = SharedAnnotator(annotator, engine)
        return LoadedModel(
            model=PacedAnnotator(shared, engine.device), resolved=resolved_model(annotator)
        )


class PacedAnnotator:
    """A shared annotator that is busy while its device is, whatever the host does meanwhile."""

    def __init__(self, shared: "SharedAnnotator", device: "PacedDevice") -> None:
        self._shared = shared
        self._device = device

    def answer_pixels(
        self, pixels: np.ndarray, tasks: Sequence[Task], fields: Sequence[Sequence[PromptFields]]
    ) -> "list[tuple[Answer, ...]]":
        return self._shared.answer_pixels(pixels, tasks, fields)

    @property
    def usage(self) -> Usage:
        return self._device.usage

    @property
    def vitals(self) -> Vitals:
        return self._shared.vitals


class PacedDevice:
    """Computes what is launched, one after the other, each for a known time."""

    def __init__(self) -> None:
        self._first: float | None = None
        self._free_at = 0.0
        self._taken_s = 0.0

    def launch(self, seconds: float) -> float:
        """Return when this computation ends."""
        now = time.monotonic()
        self._first = self._first or now
        self._free_at = max(now, self._free_at) + seconds
        self._taken_s += seconds
        return self._free_at

    def wait(self, until: float) -> None:
        time.sleep(max(until - time.monotonic(), 0))

    @property
    def usage(self) -> Usage:
        """The time that the device computed, from its first computation to now."""
        now = time.monotonic()
        return Usage(
            busy_s=self._taken_s - max(self._free_at - now, 0), span_s=now - (self._first or now)
        )


class PacedEngine:
    """Continuous batching in `slots` slots.

    A step takes the device the same time for any number of slots in use. An image costs
    `image_cost_s` when all slots are in use all the time. As on a GPU, a step is launched before
    the answers of the last one are read: the device waits only if the host takes longer than it.
    """

    def __init__(
        self, checkpoint: "Checkpoint", image_cost_s: float, slots: int = PACED_SLOTS
    ) -> None:
        tokenizer = checkpoint.tokenizer
        ids = tokenizer(LIGHT_ANSWER, add_special_tokens=False)["input_ids"]
        self._token_ids = (*ids, tokenizer.eos_token_id)
        self._slots = slots
        self._step_s = image_cost_s * slots / MEAN_STEPS
        self.device = PacedDevice()
        self.vitals = Vitals(slots=slots)

    def generate(self, requests: Iterable[Request | None]) -> Iterator[Completion]:
        """Answer requests of one prompt each, as `Engine.generate` does."""
        stream, lengths = iter(requests), _lengths()
        live: list[tuple[int, Request]] = []  # with the step that is its last
        answered: list[Request] = []  # by the step before
        ends_at = 0.0  # of the step before
        request: object = None
        for step in count():
            while len(live) < self._slots and isinstance(request := next(stream, _END), Request):
                live.append((step + next(lengths), request))
            if not (live or answered) and request is _END:
                return
            self.vitals = Vitals(slots=self._slots, live=len(live))
            next_ends_at = self.device.launch(self._step_s) if live else 0.0
            self.device.wait(ends_at)
            yield from map(self._completion, answered)
            answered = [done for last, done in live if last == step]
            live = [(last, request) for last, request in live if last > step]
            ends_at = next_ends_at

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
