"""Logits -> the next token of each row: greedy, under n-gram ban and grammar, with raw scores."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kosmos2_core.checkpoint.load import Checkpoint
from kosmos2_core.engine.model.kv_cache import bucketed
from kosmos2_core.engine.model.transfer import AsyncCopy, to_device
from kosmos2_core.engine.sampling.constraints import Constraints
from kosmos2_core.engine.sampling.grammar import Grammar, GrammarStates
from kosmos2_core.engine.sampling.ngrams import NgramHistory
from kosmos2_core.engine.sampling.scores import TokenScorer
from kosmos2_core.generation import Generation


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One row's token and its raw scores; `mass` is NaN unless the token is a location.

    `is_ngram_suppressed`: the n-gram ban took a tag or a location that was best;
    `is_grammar_enforced`: the grammar took what was best.
    """

    token_id: int
    logprob: float
    mass: float
    is_ngram_suppressed: bool
    is_grammar_enforced: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """Chosen tokens int64 [N], which stay on the device; `report` is on its way from there."""

    tokens: Tensor
    report: AsyncCopy

    def read(self) -> list[Choice]:
        """Waits until they have come."""
        return [_choice(*row) for row in zip(*self.report.values(), strict=True)]


class Sampler:
    def __init__(self, checkpoint: Checkpoint, generation: Generation) -> None:
        vocabulary = checkpoint.vocabulary
        asked = generation.no_repeat_ngram_size
        self._ngram_size = checkpoint.no_repeat_ngram_size if asked is None else asked
        self._ngram_mode = generation.resolved_ngram_mode
        rows = checkpoint.model.config.text_config.vocab_size
        assert rows < 1 << 24, "float32 holds every token id exactly"
        self._score = TokenScorer(
            rows=rows, first_location=vocabulary.first_location, device=checkpoint.device
        )
        ids = torch.arange(rows, device=checkpoint.device)
        self._is_markup = ids >= vocabulary.first_location
        self._is_markup[list(vocabulary.tags)] = True
        is_text_only = self._ngram_mode == "text"
        self._counted = ids.masked_fill(self._is_markup, -1) if is_text_only else ids
        self._grammar: Grammar | None = None
        if generation.grammar == "strict":
            eos = checkpoint.processor.tokenizer.eos_token_id
            self._grammar = Grammar(vocabulary, eos=eos, rows=rows, device=checkpoint.device)

    def new_constraints(self, slots: int, length: int) -> Constraints | None:
        """Make room for `slots` sequences of `length` tokens; None where nothing is ruled out."""
        if not self._ngram_size and self._grammar is None:
            return None
        ngrams = None
        if size := self._ngram_size:
            ngrams = NgramHistory(size=size, slots=slots, length=length, counted=self._counted)
        return Constraints(
            ngrams=ngrams,
            grammar=GrammarStates(self._grammar, slots) if self._grammar else None,
            has_placeholders=self._ngram_mode == "reference",
        )

    def __call__(
        self, logits: Tensor, constraints: Constraints | None, first_slot: int, lengths: list[int]
    ) -> Choices:
        """[N, V] of neighbouring slots from `first_slot`, which hold `lengths` tokens each."""
        best = logits.argmax(-1)
        if constraints is None:
            return self._choices(logits, best)
        held, span = to_device(lengths, logits.device), bucketed(max(lengths))
        slots = torch.arange(first_slot, first_slot + len(lengths), device=logits.device)
        unbanned, chosen = constraints.choose(logits, best, slots, held, span=span)
        constraints.append(slots, held, chosen)
        is_suppressed = (best != unbanned) & self._is_markup[best]
        return self._choices(logits, chosen, is_suppressed.float(), (unbanned != chosen).float())

    def _choices(self, logits: Tensor, chosen: Tensor, *flags: Tensor) -> Choices:
        logprobs, masses = self._score(logits, chosen)
        report = torch.stack([chosen.float(), logprobs, masses, *flags])  # one transfer
        return Choices(tokens=chosen, report=AsyncCopy(report))


def _choice(
    token_id: float,
    logprob: float,
    mass: float,
    is_suppressed: float = 0.0,
    is_enforced: float = 0.0,
) -> Choice:
    return Choice(
        token_id=int(token_id),
        logprob=logprob,
        mass=mass,
        is_ngram_suppressed=bool(is_suppressed),
        is_grammar_enforced=bool(is_enforced),
    )
