"""The answers of the sequences that have a slot, in columns of tokens and scores."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kosmos2_core.annotation import FinishReason
from kosmos2_core.engine.model.kv_cache import bucketed
from kosmos2_core.engine.requests import Prompt
from kosmos2_core.engine.sampling.sampler import Choices, ChosenTokens
from kosmos2_core.grounding.scores import TokenScores

_NOTHING = -1  # equals no token


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedAnswer:
    """All tokens of one answer. `finish_reason` is "error" after numbers that are not finite."""

    token_ids: tuple[int, ...]
    scores: TokenScores
    finish_reason: FinishReason | Literal["error"]
    is_ngram_suppressed: bool
    is_grammar_enforced: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _PendingRead:
    """Chosen tokens that the host has still to read, for the sequences in `rows` int64 [N]."""

    rows: np.ndarray
    choices: Choices


class LiveAnswers:
    """A row of columns for each slot: float32 [rows, length, 3], token, log-probability and mass.

    A sequence keeps its row while it moves from slot to slot, so that tokens on their way to the
    host find it. The last row takes the tokens of sequences that ended meanwhile. A step costs a
    few operations on columns, whatever the number of its slots.
    """

    def __init__(self, slots: int, eos: int) -> None:
        rows = slots + 1
        self._eos = eos
        self._spare = slots
        self._free = list(range(slots))
        self._rows = np.full(slots, self._spare)  # of each slot
        self._slots = np.full(rows, _NOTHING)  # of each row
        self._lengths = np.zeros(rows, np.int64)  # of prompt and answer, as chosen on the device
        self._counts = np.zeros(rows, np.int64)  # tokens of the answer that were read
        self._limits = np.zeros(rows, np.int64)
        self._ends = np.full((1, rows), _NOTHING, np.float32)  # tokens that end the answer
        self._is_suppressed = np.zeros(rows, bool)
        self._is_enforced = np.zeros(rows, bool)
        self._tokens: np.ndarray = np.zeros((rows, 0, 3), np.float32)
        self._pending: deque[_PendingRead] = deque()

    @property
    def pending(self) -> int:
        """Number of steps and prefills whose tokens are still to be read."""
        return len(self._pending)

    def begin(self, first_slot: int, prompts: Sequence[Prompt]) -> None:
        """Start the answers to prompts in the slots from `first_slot` on."""
        self._reserve(max(prompt.max_new_tokens for prompt in prompts))
        for slot, prompt in enumerate(prompts, first_slot):
            row = self._free.pop()
            self._place(row, slot)
            self._lengths[row] = len(prompt.ids)
            self._limits[row] = prompt.max_new_tokens
            self._counts[row] = 0
            self._is_suppressed[row] = self._is_enforced[row] = False
            self._set_ends(row, prompt)

    def lengths(self, first_slot: int, count: int) -> np.ndarray:
        """Return the tokens of prompt and answer, int64 [count]; the last one is not cached yet."""
        lengths: np.ndarray = self._lengths[self._rows[first_slot : first_slot + count]]
        return lengths

    def expect(self, first_slot: int, count: int, choices: Choices) -> None:
        """Add one chosen token to `count` slots from `first_slot` on. `read` waits for them."""
        rows = self._rows[first_slot : first_slot + count].copy()
        self._lengths[rows] += 1
        self._pending.append(_PendingRead(rows=rows, choices=choices))

    def read(self) -> list[int]:
        """Wait for the tokens expected first; return the slots whose answers they end, in order."""
        pending = self._pending.popleft()
        rows, chosen = pending.rows, pending.choices.read()
        is_finite = np.isfinite(chosen.logprobs)
        counts = self._append(rows, chosen, is_finite)
        has_ended = ~is_finite | (counts == self._limits[rows])
        for ends in self._ends:
            has_ended |= chosen.token_ids == ends[rows]
        return sorted(self._slots[row] for row in rows[has_ended].tolist() if row != self._spare)

    def pop(self, slot: int, prompt: Prompt) -> GeneratedAnswer:
        """Return the answer in a slot that has ended, and free its row."""
        row = int(self._rows[slot])
        self._free.append(row)
        for pending in self._pending:
            pending.rows[pending.rows == row] = self._spare
        token_ids, logprobs, masses = self._tokens[row, : self._counts[row]].T.tolist()
        token_ids = tuple(map(int, token_ids))
        return GeneratedAnswer(
            token_ids=token_ids,
            scores=TokenScores(logprobs=tuple(logprobs), masses=tuple(masses)),
            finish_reason=self._finish_reason(prompt, token_ids),
            is_ngram_suppressed=bool(self._is_suppressed[row]),
            is_grammar_enforced=bool(self._is_enforced[row]),
        )

    def move(self, slot: int, to: int) -> None:
        """Move a sequence to a slot whose answer was taken out."""
        self._place(self._rows[slot], to)

    def _place(self, row: int, slot: int) -> None:
        self._rows[slot], self._slots[row] = row, slot

    def _reserve(self, length: int) -> None:
        if (more := bucketed(length) - self._tokens.shape[1]) > 0:
            self._tokens = np.pad(self._tokens, ((0, 0), (0, more), (0, 0)))

    def _set_ends(self, row: int, prompt: Prompt) -> None:
        ends = (*prompt.stop_ids, *(() if prompt.ignore_eos else (self._eos,)))
        if (more := len(ends) - len(self._ends)) > 0:
            self._ends = np.pad(self._ends, ((0, more), (0, 0)), constant_values=_NOTHING)
        self._ends[:, row] = _NOTHING
        self._ends[: len(ends), row] = ends

    def _append(self, rows: np.ndarray, chosen: ChosenTokens, is_finite: np.ndarray) -> np.ndarray:
        """Return the tokens of each answer then. Those whose score is not finite do not count."""
        at = self._counts[rows]
        self._tokens[rows, at] = chosen.columns
        counts: np.ndarray = at + is_finite
        self._counts[rows] = counts
        self._counts[self._spare] = 0
        if chosen.is_ngram_suppressed is not None:
            self._is_suppressed[rows] |= chosen.is_ngram_suppressed & is_finite
        if chosen.is_grammar_enforced is not None:
            self._is_enforced[rows] |= chosen.is_grammar_enforced & is_finite
        return counts

    def _finish_reason(
        self, prompt: Prompt, token_ids: Sequence[int]
    ) -> FinishReason | Literal["error"]:
        last = token_ids[-1] if token_ids else _NOTHING
        if last == self._eos and not prompt.ignore_eos:
            return "eos"
        if last in prompt.stop_ids:
            return "stop"
        return "length" if len(token_ids) == prompt.max_new_tokens else "error"
