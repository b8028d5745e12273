"""The loop of continuous batching over a stream of requests."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

import torch
from torch import Tensor

from kosmos2_core.engine.diagnosis import NonFiniteDiagnosis
from kosmos2_core.engine.image_encoder import ImageEncoder
from kosmos2_core.engine.live_answers import GeneratedAnswer, LiveAnswers
from kosmos2_core.engine.model.decoder import Step, TextDecoder
from kosmos2_core.engine.model.kv_cache import bucketed
from kosmos2_core.engine.model.placement import TokenBatch
from kosmos2_core.engine.model.transfer import current_device, to_device
from kosmos2_core.engine.requests import (
    PREFIX_LENGTH,
    Completion,
    Prompt,
    PromptRules,
    Request,
    check_request,
)
from kosmos2_core.engine.sampling.sampler import Choices, Sampler
from kosmos2_core.engine.scheduler import Scheduler
from kosmos2_core.engine.sequence import RequestState, SequenceState, failed
from kosmos2_core.engine.slot_memory import SlotMemory
from kosmos2_core.engine.vitals import StepClock
from kosmos2_core.errors import InvalidRequest

_KNOWN_PROMPTS = 64  # found valid last: tasks without fields ask the same of every image


@dataclass(frozen=True, slots=True, kw_only=True)
class Components:
    """The parts that all loops of an engine share.

    A prefill starts when `prefill_group` slots are free, or as many as sequences wait; images are
    read ahead for it. `step` is the decoder's, or stands for it. Tokens of `lag` steps are on their
    way to the host while the next step runs: 0, or 1 where reading would make the device wait. The
    end of a sequence is then seen one step late, and that row is wasted.
    """

    image_encoder: ImageEncoder
    decoder: TextDecoder
    sampler: Sampler
    rules: PromptRules
    eos: int
    step: Step
    lag: int
    prefill_group: int
    clock: StepClock
    diagnosis: NonFiniteDiagnosis


class BatchingLoop:
    def __init__(
        self,
        components: Components,
        memory: SlotMemory,
        *,
        slots: int,
        requests: Iterator[Request | None],
    ) -> None:
        self._components = components
        self._memory = memory
        self._requests = requests
        self._is_exhausted = False
        self._scheduler: Scheduler[SequenceState] = Scheduler(slots)
        self._done: deque[Completion] = deque()
        self._answers = LiveAnswers(slots, components.eos)
        self._check_prompt = lru_cache(_KNOWN_PROMPTS)(components.rules.check)

    def completions(self) -> Iterator[Completion]:
        """Yield each completion before more is read or computed."""
        while self._done or self.live or self.waiting or not self._is_exhausted:
            while self._done:
                yield self._done.popleft()
            self._advance()

    @property
    def live(self) -> int:
        """Sequences that have a slot now."""
        return len(self._scheduler.live)

    @property
    def waiting(self) -> int:
        """Sequences whose image is encoded, without a slot as yet."""
        return self._scheduler.waiting

    @torch.inference_mode()
    def _advance(self) -> None:
        """Fill the free slots, then one token for every live sequence."""
        with current_device(self._memory.tokens.device):
            self._fill()
            if self.live and not self._done:
                started = time.perf_counter()
                self._decode()
                self._components.clock.add(time.perf_counter() - started)

    def _fill(self) -> None:
        group = self._components.prefill_group
        while free := self._scheduler.free:
            if self.waiting < group and not self._done:
                self._read_requests()
            if not self.waiting or (self.live and free < min(group, self.waiting)):
                return
            self._admit()

    def _decode(self) -> None:
        memory, starts = self._memory, self._answers.lengths(0, self.live) - 1
        if memory.graphs is not None:
            self._expect(0, self.live, memory.graphs(starts))
            return
        span = bucketed(int(starts.max()) + 1)
        tokens = memory.tokens[: self.live]
        positions = to_device(starts, tokens.device)
        logits = self._components.step(memory.cache, tokens, positions, span=span)
        self._sample(logits, 0, self.live)

    # From requests to sequences that wait

    def _read_requests(self) -> None:
        """Read some requests, if there are any now, and encode their images."""
        encoder, requests = self._components.image_encoder, []
        for request in islice(self._requests, encoder.batch):
            if request is None:
                break
            requests.append(request)
        else:
            self._is_exhausted = not requests
        usable = [request for request in requests if self._is_usable(request)]
        for request, image in zip(usable, encoder.encode(usable), strict=True):
            self._queue(RequestState(request=request, image=image), request.prompts)

    def _is_usable(self, request: Request) -> bool:
        try:
            check_request(request)
        except InvalidRequest as error:
            tasks = [prompt.task for prompt in request.prompts] or [""]
            self._done += [failed(request, i, task, error) for i, task in enumerate(tasks)]
            return False
        return True

    def _queue(self, state: RequestState, prompts: Sequence[Prompt]) -> None:
        first = state.asked
        state.asked += len(prompts)
        sequences = []
        for index, prompt in enumerate(prompts, first):
            try:
                self._check_prompt(prompt)
            except InvalidRequest as error:
                self._complete(state, failed(state.request, index, prompt.task, error))
            else:
                sequences.append(SequenceState(request_state=state, index=index, prompt=prompt))
        if first:
            self._scheduler.queue_first(sequences)
        else:
            self._scheduler.queue(sequences)

    def _complete(self, state: RequestState, completion: Completion) -> None:
        self._done.append(completion)
        state.completions[completion.index] = completion
        if state.is_answered and state.request.follow_up and not state.has_followed_up:
            state.has_followed_up = True
            self._queue(state, state.request.follow_up(state.in_order()))

    # From waiting to done

    def _admit(self) -> None:
        """Prefill prompts of about one length, or the part of them that follows the prefix."""
        sequences = self._scheduler.admit(_prefill_group)
        if not sequences:
            return
        first = self.live - len(sequences)
        prompts = [sequence.prompt for sequence in sequences]
        self._memory.begin(first, prompts)
        self._answers.begin(first, prompts)
        self._sample(self._prefill(first, sequences), first, len(sequences))

    def _prefill(self, first: int, sequences: Sequence[SequenceState]) -> Tensor:
        cache, decoder = self._memory.cache, self._components.decoder
        ids = [sequence.prompt.ids for sequence in sequences]
        images = [sequence.request_state.image for sequence in sequences]
        if images[0].prefix is None:
            features = torch.stack([image.features for image in images])
            return decoder(cache, TokenBatch(first_slot=first, ids=ids, start=0), features)
        for slot, image in enumerate(images, first):
            assert image.prefix is not None
            cache.write_prefix(slot, image.prefix)
        rest = [row[PREFIX_LENGTH:] for row in ids]
        return decoder(cache, TokenBatch(first_slot=first, ids=rest, start=PREFIX_LENGTH))

    def _sample(self, logits: Tensor, first: int, count: int) -> None:
        """The next token of the sequences in `count` slots from `first` on, on the device."""
        lengths = self._answers.lengths(first, count)
        choices = self._components.sampler(logits, self._memory.constraints, first, lengths)
        self._memory.tokens[first : first + count] = choices.tokens
        self._expect(first, count, choices)

    def _expect(self, first: int, count: int, choices: Choices) -> None:
        """Note that tokens were chosen, and read those of earlier steps."""
        self._answers.expect(first, count, choices)
        while self._answers.pending > self._components.lag:
            self._release(self._answers.read())

    def _release(self, slots: list[int]) -> None:
        """Complete the sequences in these slots; those behind them move there."""
        if not slots:
            return
        ended = [self._scheduler.live[slot] for slot in slots]
        answers = self._answers.pop(slots, [sequence.prompt for sequence in ended])
        layers = [self._broken_layer(*found) for found in zip(slots, ended, answers, strict=True)]
        moves = self._scheduler.release(slots)
        for (slot, to), length in zip(moves, self._answers.move(moves), strict=True):
            self._memory.move(slot, to, length)
        for sequence, answer, layer in zip(ended, answers, layers, strict=True):
            self._complete(sequence.request_state, sequence.completion(answer, layer))

    def _broken_layer(
        self, slot: int, sequence: SequenceState, answer: GeneratedAnswer
    ) -> str | None:
        """Return the layer where numbers that are not finite come from; their slot is cleared."""
        if answer.finish_reason != "error":
            return None
        self._memory.cache.clear(slot)
        ids = [*sequence.prompt.ids, *answer.token_ids]
        return self._components.diagnosis.layer_of(sequence.request_state.request.pixels, ids)


def _prefill_group(sequence: SequenceState) -> tuple[bool, int]:
    """Return a key; sequences of equal keys may be prefilled together."""
    return sequence.request_state.image.prefix is None, bucketed(len(sequence.prompt.ids))
