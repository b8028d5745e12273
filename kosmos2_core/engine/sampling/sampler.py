"""Logits -> the next token of each row: greedy, under n-gram ban and grammar, with raw scores."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
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
class ChosenTokens:
    """Tokens and their raw scores, one row for each sequence.

    `columns` float32 [N, 3]: token, log-probability, and mass, which is NaN unless the token is a
    location. `is_ngram_suppressed` bool [N]: the n-gram ban took a tag or a location that was best;
    `is_grammar_enforced` bool [N]: the grammar took what was best. None where nothing is ruled out.
    """

    columns: np.ndarray
    is_ngram_suppressed: np.ndarray | None = None
    is_grammar_enforced: np.ndarray | None = None

    @property
    def token_ids(self) -> np.ndarray:
        return self.columns[:, 0]

    @property
    def logprobs(self) -> np.ndarray:
        return self.columns[:, 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """Chosen tokens int64 [N], which stay on the device; `report` is on its way from there.

    It is float32 [3 or 5, N]: tokens, log-probabilities, masses, and the flags of constraints.
    """

    tokens: Tensor
    report: AsyncCopy

    def read(self) -> ChosenTokens:
        """Waits until they have come."""
        report = self.report.values()
        columns = report[:3].T
        if len(report) == 3:
            return ChosenTokens(columns=columns)
        is_suppressed, is_enforced = report[3:] > 0
        return ChosenTokens(
            columns=columns, is_ngram_suppressed=is_suppressed, is_grammar_enforced=is_enforced
        )


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
            eos = checkpoint.tokenizer.eos_token_id
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
        self,
        logits: Tensor,
        constraints: Constraints | None,
        first_slot: int,
        lengths: Sequence[int] | np.ndarray,
    ) -> Choices:
        """[N, V] of neighbouring slots from `first_slot`, which hold `lengths` tokens each."""
        if constraints is None:
            best = logits.argmax(-1)
            return Choices(tokens=best, report=AsyncCopy(self._report(logits, best)))
        held, span = to_device(lengths, logits.device), bucketed(int(np.max(lengths)))
        slots = torch.arange(first_slot, first_slot + len(lengths), device=logits.device)
        chosen, report = self.choose(logits, constraints, slots, held, span=span)
        return Choices(tokens=chosen, report=AsyncCopy(report))

    def choose(
        self,
        logits: Tensor,
        constraints: Constraints | None,
        slots: Tensor,
        lengths: Tensor,
        *,
        span: int,
    ) -> tuple[Tensor, Tensor]:
        """Tokens int64 [N] and report, of slots that hold `lengths` tokens: int64 [N] each.

        No sequence is longer than `span`. Only tensors come in and go out, as in a graph.
        """
        best = logits.argmax(-1)
        if constraints is None:
            return best, self._report(logits, best)
        unbanned, chosen = constraints.choose(logits, best, slots, lengths, span=span)
        constraints.append(slots, lengths, chosen)
        is_suppressed = (best != unbanned) & self._is_markup[best]
        flags = is_suppressed.float(), (unbanned != chosen).float()
        return chosen, self._report(logits, chosen, *flags)

    def _report(self, logits: Tensor, chosen: Tensor, *flags: Tensor) -> Tensor:
        logprobs, masses = self._score(logits, chosen)
        return torch.stack([chosen.float(), logprobs, masses, *flags])  # one transfer
