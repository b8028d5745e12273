"""A model whose engine only waits, as for a device, and gives one fixed answer."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from jobs.bench.light.model import LIGHT_ANSWER
from kosmos2_core.engine.requests import Completion, Request
from kosmos2_core.engine.vitals import Vitals
from kosmos2_core.grounding.scores import TokenScores
from pipeline.execution.model import LoadedModel, load_annotator, resolved_model
from pipeline.spec.job import JobSpec

if TYPE_CHECKING:
    from kosmos2_core.checkpoint.load import Checkpoint

PACED_SLOTS = 16
MEAN_STEPS = 30
_END = object()


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
        ids = tokenizer(LIGHT_ANSWER, add_special_tokens=False)["input_ids"]
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
