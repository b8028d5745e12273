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
    """Columns [N]: tokens and their raw scores; a mass is NaN unless the token is a location.

    `token_ids` int64, `logprobs` and `masses` float32. `is_ngram_suppressed` bool: the n-gram ban
    took a tag or a location that was best; `is_grammar_enforced` bool: the grammar took what was
    best.
    """

    token_ids: np.ndarray
    logprobs: np.ndarray
    masses: np.ndarray
    is_ngram_suppressed: np.ndarray
    is_grammar_enforced: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """Chosen tokens int64 [N], which stay on the device; `report` is on its way from there.

    It is float32 [3 or 5, N]: tokens, log-probabilities, masses, and the flags of constraints.
    """

    tokens: Tensor
    report: AsyncCopy

    def read(self) -> ChosenTokens:
        """Waits until they have come."""
        token_ids, logprobs, masses, *flags = self.report.values()
        is_suppressed, is_enforced = flags or np.zeros((2, len(token_ids)))
        return ChosenTokens(
            token_ids=token_ids.astype(np.int64),
            logprobs=logprobs,
            masses=masses,
            is_ngram_suppressed=is_suppressed > 0,
            is_grammar_enforced=is_enforced > 0,
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
