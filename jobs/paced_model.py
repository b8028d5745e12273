"""A model that takes its time like a device, and always says the same. For benchmarks."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count

from kosmos2_core.checkpoint.load import Checkpoint
from kosmos2_core.engine.requests import Completion, Request
from kosmos2_core.engine.vitals import Vitals
from kosmos2_core.grounding.parser import TokenScore
from kosmos2_core.shared_annotator import SharedAnnotator
from pipeline.execution.model import load_annotator
from pipeline.spec.identity import Identity
from pipeline.spec.job import JobSpec

SLOTS = 16
MEAN_STEPS = 30
ANSWER = (
    "<phrase> a red square</phrase><object><patch_index_0132><patch_index_0331></object> and"
    "<phrase> a cyan star</phrase><object><patch_index_0494><patch_index_0700></object>."
)

_END = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class PacedModel:
    """Loads, in an actor, an annotator whose engine takes `image_cost_s` for each image."""

    image_cost_s: float

    def __call__(self, spec: JobSpec, identity: Identity) -> SharedAnnotator:
        annotator = load_annotator(spec)
        return SharedAnnotator(annotator, PacedEngine(annotator.checkpoint, self.image_cost_s))


class PacedEngine:
    """Continuous batching in `SLOTS` slots.

    A step takes as long with one slot in use as with all, as on a GPU: only with all in use all
    the time does an image cost `image_cost_s`.
    """

    def __init__(self, checkpoint: Checkpoint, image_cost_s: float) -> None:
        tokenizer = checkpoint.processor.tokenizer
        ids = tokenizer(ANSWER, add_special_tokens=False)["input_ids"]
        self._token_ids = (*ids, tokenizer.eos_token_id)
        self._step_s = image_cost_s * SLOTS / MEAN_STEPS
        self.vitals = Vitals(slots=SLOTS)

    def generate(self, requests: Iterable[Request | None]) -> Iterator[Completion]:
        """The contract of `Engine.generate`, for requests of one prompt."""
        stream, lengths = iter(requests), _lengths()
        live: list[tuple[int, Request]] = []  # with the step that is its last
        request: object = None
        for step in count():
            while len(live) < SLOTS and isinstance(request := next(stream, _END), Request):
                live.append((step + next(lengths), request))
            if not live and request is _END:
                return
            if live:
                time.sleep(self._step_s)
            self.vitals = Vitals(slots=SLOTS, live=len(live))
            yield from (self._completion(done) for last, done in live if last == step)
            live = [(last, request) for last, request in live if last > step]

    def _completion(self, request: Request) -> Completion:
        (prompt,) = request.prompts
        return Completion(
            request_id=request.id,
            index=0,
            task=prompt.task,
            token_ids=self._token_ids,
            scores=(TokenScore(logprob=-0.1, mass=0.9),) * len(self._token_ids),
            finish_reason="eos",
        )


def _lengths() -> Iterator[int]:
    """1 to 59 steps in a fixed disorder, `MEAN_STEPS` on average."""
    return (7 * number % (2 * MEAN_STEPS - 1) for number in count())
