"""What the tokens so far rule out for the next one, in every slot."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kosmos2_core.engine.requests import PREFIX_LENGTH, Prompt
from kosmos2_core.engine.sampling.grammar import GrammarStates
from kosmos2_core.engine.sampling.ngrams import NgramHistory


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """Either is None where it is off. `has_placeholders`: those of the image count for n-grams."""

    ngrams: NgramHistory | None
    grammar: GrammarStates | None
    has_placeholders: bool

    def begin(self, first_slot: int, prompts: Sequence[Prompt]) -> None:
        """Prompts in the slots from `first_slot` on."""
        if self.ngrams is not None:
            skip = 0 if self.has_placeholders else PREFIX_LENGTH
            self.ngrams.begin(first_slot, [prompt.ids for prompt in prompts], skip=skip)
        if self.grammar is not None:
            texts = [prompt.ids[PREFIX_LENGTH:] for prompt in prompts]
            ends = [len(prompt.ids) + prompt.max_new_tokens for prompt in prompts]
            self.grammar.begin(first_slot, texts, ends)

    def choose(
        self, logits: Tensor, best: Tensor, slots: Tensor, lengths: Tensor, *, span: int
    ) -> tuple[Tensor, Tensor]:
        """logits [N, V] -> int64 [N] each: the best token under the n-gram ban, and the best that
        the grammar allows, too. `best` is that without either; `span` is no less than any length.
        """
        unbanned, banned = best, None
        if self.ngrams is not None:
            banned = self.ngrams.banned(slots, lengths, logits.shape[1], span=span)
            unbanned = logits.masked_fill(banned, -torch.inf).argmax(-1)
        if self.grammar is None:
            return unbanned, unbanned
        allowed = self.grammar.allowed(slots, lengths)
        if banned is not None:
            # Where the ban leaves nothing that the grammar allows, the grammar goes first.
            both = allowed & ~banned
            allowed = both.where(both.any(-1, keepdim=True), allowed)
        return unbanned, logits.masked_fill(~allowed, -torch.inf).argmax(-1)

    def append(self, slots: Tensor, lengths: Tensor, tokens: Tensor) -> None:
        """int64 [N] each: the next token of each slot that holds `lengths` tokens."""
        if self.ngrams is not None:
            self.ngrams.append(slots, lengths, tokens)
        if self.grammar is not None:
            self.grammar.append(slots, tokens)

    def move(self, slot: int, to: int) -> None:
        if self.ngrams is not None:
            self.ngrams.move(slot, to)
        if self.grammar is not None:
            self.grammar.move(slot, to)
