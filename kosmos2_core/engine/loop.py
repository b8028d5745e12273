"""One run of the engine over a stream of requests: the loop of continuous batching."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from kosmos2_core.engine.image_prefix import Picture, Viewer
from kosmos2_core.engine.model.decoder import Decoder, Step
from kosmos2_core.engine.model.kv_cache import bucketed
from kosmos2_core.engine.model.placement import Tokens
from kosmos2_core.engine.model.transfer import sent
from kosmos2_core.engine.pending import Pending
from kosmos2_core.engine.requests import (
    HEAD_LENGTH,
    Completion,
    Prompt,
    PromptRules,
    Request,
    check_request,
)
from kosmos2_core.engine.sampling.sampler import Sampler
from kosmos2_core.engine.scheduler import Scheduler
from kosmos2_core.engine.sequence import Flight, Growing, failed
from kosmos2_core.engine.slot_memory import SlotMemory
from kosmos2_core.engine.vitals import StepClock
from kosmos2_core.errors import InvalidRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What all runs of an engine share.

    `step` is the decoder's, or stands for it. Of `lag` steps the tokens are on their way to the
    host while the next step already goes on from them: 0, or 1 where reading would make the device
    wait. A sequence that has ended is then found out one step late, and that row is wasted.
    """

    viewer: Viewer
    decoder: Decoder
    sampler: Sampler
    rules: PromptRules
    eos: int
    step: Step
    lag: int
    clock: StepClock


class Run:
    def __init__(
        self,
        parts: Parts,
        memory: SlotMemory,
        *,
        slots: int,
        requests: Iterator[Request | None],
    ) -> None:
        self._parts = parts
        self._memory = memory
        self._requests = requests
        self._is_exhausted = False
        self._schedule: Scheduler[Growing[Picture]] = Scheduler(slots)
        self._done: deque[Completion] = deque()
        self._pending: deque[Pending] = deque()

    def completions(self) -> Iterator[Completion]:
        """What is done is handed out before more is read or computed."""
        while self._done or self._has_work:
            while self._done:
                yield self._done.popleft()
            self._advance()

    @property
    def live(self) -> int:
        """Sequences that have a slot now."""
        return len(self._schedule.live)

    @property
    def waiting(self) -> int:
        """Sequences whose image was looked at, without a slot as yet."""
        return self._schedule.waiting

    @property
    def _has_work(self) -> bool:
        schedule = self._schedule
        return bool(schedule.live or schedule.waiting or not self._is_exhausted)

    @torch.inference_mode()
    def _advance(self) -> None:
        """Fill the free slots, then one token for every live sequence."""
        self._fill()
        if self._schedule.live and not self._done:
            started = time.perf_counter()
            self._decode()
            self._parts.clock.add(time.perf_counter() - started)

    def _fill(self) -> None:
        while self._schedule.free:
            if not self._schedule.waiting and (self._done or not self._pull()):
                return
            self._start()

    def _decode(self) -> None:
        live, memory = self._schedule.live, self._memory
        starts = [sequence.length - 1 for sequence in live]
        span = bucketed(max(starts) + 1)
        tokens = memory.tokens[: len(live)]
        logits = self._parts.step(memory.cache, tokens, sent(starts, tokens.device), span=span)
        self._choose(logits, 0, live)

    # From requests to sequences that wait

    def _pull(self) -> bool:
        """Read some requests and look at their images. False: there are none, now or any more."""
        viewer, requests = self._parts.viewer, []
        for request in islice(self._requests, viewer.batch):
            if request is None:
                break
            requests.append(request)
        else:
            self._is_exhausted = not requests
        usable = [request for request in requests if self._is_usable(request)]
        for request, picture in zip(usable, viewer.look(usable), strict=True):
            self._ask(Flight(request=request, image=picture), request.prompts)
        return bool(requests)

    def _is_usable(self, request: Request) -> bool:
        try:
            check_request(request)
        except InvalidRequest as error:
            tasks = [prompt.task for prompt in request.prompts] or [""]
            self._done += [failed(request, i, task, error) for i, task in enumerate(tasks)]
            return False
        return True

    def _ask(self, flight: Flight[Picture], prompts: Sequence[Prompt]) -> None:
        first = flight.asked
        flight.asked += len(prompts)
        sequences = []
        for index, prompt in enumerate(prompts, first):
            try:
                self._parts.rules.check(prompt)
            except InvalidRequest as error:
                self._answer(flight, failed(flight.request, index, prompt.task, error))
            else:
                sequences.append(Growing(flight=flight, index=index, prompt=prompt))
        if first:
            self._schedule.queue_first(sequences)
        else:
            self._schedule.queue(sequences)

    def _answer(self, flight: Flight[Picture], completion: Completion) -> None:
        self._done.append(completion)
        flight.completions[completion.index] = completion
        if flight.is_answered and flight.request.follow_up and not flight.has_followed_up:
            flight.has_followed_up = True
            self._ask(flight, flight.request.follow_up(flight.in_order()))

    # From waiting to done

    def _start(self) -> None:
        """Prefill prompts of about one length, or the part of them that follows the head."""
        sequences = self._schedule.admit(_kind)
        if not sequences:
            return
        first = len(self._schedule.live) - len(sequences)
        longest = max(len(s.prompt.ids) + s.prompt.max_new_tokens for s in sequences)
        self._memory.reserve(longest + self._parts.lag)
        for slot, sequence in enumerate(sequences, first):
            self._memory.begin(slot, sequence.prompt)
        self._choose(self._prefill(first, sequences), first, sequences)

    def _prefill(self, first: int, sequences: Sequence[Growing[Picture]]) -> Tensor:
        n, cache, decoder = len(sequences), self._memory.cache, self._parts.decoder
        ids = [sequence.prompt.ids for sequence in sequences]
        pictures = [sequence.flight.image for sequence in sequences]
        if pictures[0].head is None:
            images = torch.stack([picture.features for picture in pictures])
            return decoder(cache, Tokens(first_slot=first, ids=ids, starts=[0] * n), images)
        for slot, picture in enumerate(pictures, first):
            assert picture.head is not None
            cache.write_head(slot, picture.head)
        rest = [row[HEAD_LENGTH:] for row in ids]
        return decoder(cache, Tokens(first_slot=first, ids=rest, starts=[HEAD_LENGTH] * n))

    def _choose(self, logits: Tensor, first: int, sequences: Sequence[Growing[Picture]]) -> None:
        """The next token of the sequences in the slots from `first` on, on the device."""
        lengths = [sequence.length for sequence in sequences]
        choices = self._parts.sampler(logits, self._memory.constraints, first, lengths)
        self._memory.tokens[first : first + len(sequences)] = choices.tokens
        for sequence in sequences:
            sequence.chosen += 1
        self._pending.append(Pending(sequences=tuple(sequences), choices=choices))
        self._settle()

    def _settle(self) -> None:
        """Read what was chosen, but for the latest steps that may wait; those at their end go."""
        while len(self._pending) > self._parts.lag:
            self._pending.popleft().read(self._parts.eos)
            self._release([i for i, s in enumerate(self._schedule.live) if s.finish_reason])
        if not self._schedule.live:
            self._pending.clear()  # rows of sequences that had ended

    def _release(self, slots: list[int]) -> None:
        finished = [self._schedule.live[slot] for slot in slots]
        for slot, sequence in zip(slots, finished, strict=True):
            if sequence.finish_reason == "error":
                self._memory.cache.clear(slot)
        for move in self._schedule.release(slots):
            self._memory.move(move.slot, move.to, self._schedule.live[move.to].length)
        for sequence in finished:
            self._answer(sequence.flight, sequence.completion())


def _kind(sequence: Growing[Picture]) -> tuple[bool, int]:
    """What may be prefilled together."""
    return sequence.flight.image.head is None, bucketed(len(sequence.prompt.ids))
