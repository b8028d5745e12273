"""The answers of the sequences that have a slot, in columns of tokens and scores."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

import numpy as np

from kosmos2_core.annotation import FinishReason
from kosmos2_core.engine.model.kv_cache import bucketed
from kosmos2_core.engine.requests import Prompt
from kosmos2_core.engine.sampling.sampler import Choices, ChosenTokens
from kosmos2_core.engine.scheduler import Move
from kosmos2_core.grounding.scores import TokenScores
from kosmos2_core.quick_init import quick_init

_NOTHING = -1  # equals no token


@quick_init
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
        limits = [prompt.max_new_tokens for prompt in prompts]
        self._reserve(max(limits))
        rows = np.array([self._free.pop() for _ in prompts])
        self._place(rows, np.arange(first_slot, first_slot + len(prompts)))
        self._lengths[rows] = [len(prompt.ids) for prompt in prompts]
        self._limits[rows] = limits
        self._counts[rows] = 0
        self._is_suppressed[rows] = self._is_enforced[rows] = False
        self._set_ends(rows, prompts)

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

    def pop(self, slots: Sequence[int], prompts: Sequence[Prompt]) -> list[GeneratedAnswer]:
        """Return the answers in slots that have ended, and free their rows."""
        rows = self._rows[slots]
        self._free += rows.tolist()
        read_as = np.arange(len(self._slots))
        read_as[rows] = self._spare
        for pending in self._pending:
            pending.rows[:] = read_as[pending.rows]
        return [self._answer(*of) for of in zip(rows.tolist(), prompts, strict=True)]

    def move(self, moves: Sequence[Move]) -> list[int]:
        """Move sequences to slots whose answers were taken out; return their `lengths`."""
        slots, targets = np.array(moves, np.int64).reshape(-1, 2).T
        rows = self._rows[slots]
        self._place(rows, targets)
        lengths: list[int] = self._lengths[rows].tolist()
        return lengths

    def _answer(self, row: int, prompt: Prompt) -> GeneratedAnswer:
        token_ids, logprobs, masses = self._tokens[row, : self._counts[row]].T.tolist()
        token_ids = tuple(map(int, token_ids))
        return GeneratedAnswer(
            token_ids=token_ids,
            scores=TokenScores(logprobs=tuple(logprobs), masses=tuple(masses)),
            finish_reason=self._finish_reason(prompt, token_ids),
            is_ngram_suppressed=bool(self._is_suppressed[row]),
            is_grammar_enforced=bool(self._is_enforced[row]),
        )

    def _place(self, rows: np.ndarray, slots: np.ndarray) -> None:
        self._rows[slots], self._slots[rows] = rows, slots

    def _reserve(self, length: int) -> None:
        if (more := bucketed(length) - self._tokens.shape[1]) > 0:
            self._tokens = np.pad(self._tokens, ((0, 0), (0, more), (0, 0)))

    def _set_ends(self, rows: np.ndarray, prompts: Sequence[Prompt]) -> None:
        ends = [(*p.stop_ids, *(() if p.ignore_eos else (self._eos,))) for p in prompts]
        columns = list(zip_longest(*ends, fillvalue=_NOTHING))
        if (more := len(columns) - len(self._ends)) > 0:
            self._ends = np.pad(self._ends, ((0, more), (0, 0)), constant_values=_NOTHING)
        self._ends[:, rows] = _NOTHING
        for column, ids in zip(self._ends, columns, strict=False):
            column[rows] = ids

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
