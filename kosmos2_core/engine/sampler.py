"""Logits -> the next token of each row: greedy, under the n-gram ban, with raw scores."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from kosmos2_core.checkpoint import Checkpoint
from kosmos2_core.engine.ngrams import NgramHistory
from kosmos2_core.engine.requests import HEAD_LENGTH
from kosmos2_core.engine.scores import score_tokens

# reference: exactly as Hugging Face's processor, over the whole row with the placeholders of
# the image. text: a run counts only if all its tokens are text. (The reference takes boxes from
# repeated nouns: after "dog </phrase> <object>" once, the second dog gets no <object>.)
NgramMode = Literal["reference", "text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One row's token and its raw scores; `mass` is NaN unless the token is a location."""

    token_id: int
    logprob: float
    mass: float
    is_ngram_suppressed: bool


class Sampler:
    def __init__(self, checkpoint: Checkpoint, *, ngram_size: int, ngram_mode: NgramMode) -> None:
        vocabulary = checkpoint.vocabulary
        self.ngram_size = ngram_size
        self._skip = HEAD_LENGTH if ngram_mode == "text" else 0
        self._first_location = vocabulary.first_location
        rows = checkpoint.model.config.text_config.vocab_size
        ids = torch.arange(rows, device=checkpoint.device)
        self._is_markup = ids >= vocabulary.first_location
        self._is_markup[list(vocabulary.tags)] = True
        is_counted = ~self._is_markup if ngram_mode == "text" else torch.ones_like(self._is_markup)
        self._counted = ids.where(is_counted, -1)

    def new_history(self, slots: int, length: int) -> NgramHistory | None:
        if not self.ngram_size:
            return None
        return NgramHistory(size=self.ngram_size, slots=slots, length=length, counted=self._counted)

    def begin(self, history: NgramHistory | None, slot: int, ids: tuple[int, ...]) -> None:
        if history is not None:
            history.begin(slot, ids, self._skip)

    def __call__(
        self, logits: Tensor, history: NgramHistory | None, first_slot: int, lengths: list[int]
    ) -> list[Choice]:
        """[N, V] of neighbouring slots from `first_slot`, which hold `lengths` tokens each."""
        best = logits.argmax(-1)
        chosen = best
        if history is not None:
            held = torch.tensor(lengths, device=logits.device)
            slots = torch.arange(first_slot, first_slot + len(lengths), device=logits.device)
            banned = history.banned(slots, held, logits.shape[1])
            chosen = logits.masked_fill(banned, -torch.inf).argmax(-1)
            history.append(slots, held, chosen)
        logprobs, masses = score_tokens(logits, chosen, self._first_location)
        is_suppressed = (best != chosen) & self._is_markup[best]
        # One transfer from the device; float64 holds every id exactly.
        columns = torch.stack([chosen.double(), logprobs.double(), masses.double(), is_suppressed])
        return [_choice(*row) for row in columns.T.tolist()]


def _choice(token_id: float, logprob: float, mass: float, is_suppressed: float) -> Choice:
    return Choice(
        token_id=int(token_id),
        logprob=logprob,
        mass=mass,
        is_ngram_suppressed=bool(is_suppressed),
    )
