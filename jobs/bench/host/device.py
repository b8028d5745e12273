"""A device that costs nothing: the engine's own loop over answers that are known before."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import count, islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kosmos2_core.checkpoint.load import Checkpoint
from kosmos2_core.engine.capacity import vision_batch_for
from kosmos2_core.engine.engine import Engine, prefill_group_for
from kosmos2_core.engine.loop import BatchingLoop
from kosmos2_core.engine.model.placement import TokenBatch
from kosmos2_core.engine.model.transfer import AsyncCopy
from kosmos2_core.engine.requests import Completion, Request
from kosmos2_core.engine.sampling.sampler import Choices
from kosmos2_core.engine.slot_memory import SlotMemory
from kosmos2_core.engine.vitals import Vitals
from kosmos2_core.generation import Generation


class FreeEngine:
    """An engine whose model and sampler only look up what they return.

    Requests, slots, sequences, late reads and completions are those of `Engine`. `answers` float32
    [N, length, 3] holds the token id, log-probability and mass of each token of each answer.
    Prompts get them in turn.
    """

    def __init__(self, checkpoint: Checkpoint, answers: np.ndarray, slots: int) -> None:
        real = Engine(checkpoint, Generation(slots=1), reads_late=True)  # only for its parts
        device: Any = _FreeDevice(answers)
        self._slots = slots
        self._components = replace(
            real.components,
            image_encoder=replace(
                real.components.image_encoder,
                vision=device.encode,
                decoder=device,
                batch=vision_batch_for("cuda"),
            ),
            decoder=device,
            step=device.step,
            prefill_group=prefill_group_for("cuda", slots),
            sampler=device.sample,
        )

    def generate(self, requests: Iterable[Request | None]) -> Iterator[Completion]:
        """Answer as `Engine.generate`."""
        cache: Any = _FreeCache(self._slots)
        tokens = torch.zeros(self._slots, dtype=torch.int64)
        memory = SlotMemory(cache=cache, tokens=tokens, constraints=None)
        loop = BatchingLoop(self._components, memory, slots=self._slots, requests=iter(requests))
        return loop.completions()

    @property
    def vitals(self) -> Vitals:
        clock = self._components.clock
        return Vitals(slots=self._slots, decode_steps=clock.steps, decode_s=clock.seconds)


class _FreeCache:
    """Holds, in place of keys and values, the number of each slot's answer and its start."""

    def __init__(self, slots: int) -> None:
        self.answers, self.starts = np.zeros((2, slots), np.int64)

    def move(self, slot: int, to: int, length: int) -> None:
        self.answers[to], self.starts[to] = self.answers[slot], self.starts[slot]


class _FreeDevice:
    """Vision, decoder and sampler. Logits are [N, 3]: the next token and its scores."""

    def __init__(self, answers: np.ndarray) -> None:
        self._answers = answers
        self._numbers = count()

    def encode(self, pixels: Tensor) -> Tensor:
        return torch.zeros(len(pixels), 1, 1)

    def __call__(
        self, cache: _FreeCache, batch: TokenBatch, images: Tensor | None = None
    ) -> Tensor:
        n, first = len(batch.ids), batch.first_slot
        numbers = np.fromiter(islice(self._numbers, n), np.int64) % len(self._answers)
        cache.answers[first : first + n] = numbers
        cache.starts[first : first + n] = [batch.start + len(ids) for ids in batch.ids]
        return torch.from_numpy(self._answers[numbers, 0])

    def step(self, cache: _FreeCache, ids: Tensor, starts: Tensor, *, span: int) -> Tensor:
        n = len(ids)
        at = starts.numpy() - cache.starts[:n] + 1
        return torch.from_numpy(self._answers[cache.answers[:n], at])

    def sample(
        self, logits: Tensor, constraints: None, first_slot: int, lengths: Sequence[int]
    ) -> Choices:
        tokens = torch.from_numpy(logits.numpy()[:, 0].astype(np.int64))
        return Choices(tokens=tokens, report=AsyncCopy(logits.t()))
