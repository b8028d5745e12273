"""Attention of a decode step on the CPU: one span for all slots, or one for each group of slots.

```
python -m jobs.bench.engine.spans
```
"""

import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from kosmos2_core.comparison.machine import one_torch_thread, processor
from kosmos2_core.comparison.random_model import Proportions
from kosmos2_core.comparison.workload import BRIEF_LENGTHS, DETAILED_LENGTHS, Lengths
from kosmos2_core.engine.model.attention import products_for_one
from kosmos2_core.engine.model.kv_cache import bucketed

_PROMPT = 72  # tokens, about those of both tasks
_SLOTS = (16, 64, 256)
_GROUPS = (1, 4, 8, 16)
_STATES, _REPEATS = 3, 5


class StepAttention:
    """One layer's attention for `lengths` int64 [N]: the cached positions of each slot."""

    def __init__(self, lengths: np.ndarray, *, heads: int, head_dim: int) -> None:
        n, span = len(lengths), bucketed(int(lengths.max()))
        generator = torch.Generator().manual_seed(0)
        self._lengths = lengths
        self._query = torch.randn(n, heads, 1, head_dim, generator=generator)
        self._cache = torch.randn(2, n, heads, span, head_dim, generator=generator)
        is_seen = torch.arange(span) < torch.from_numpy(lengths)[:, None]
        self._mask = torch.zeros(n, span).masked_fill_(~is_seen, -torch.inf)[:, None, None]

    def __call__(self, groups: int) -> Tensor:
        """Return [N, heads, 1, head_dim]; each of `groups` neighbouring parts has its own span."""
        size = len(self._lengths) // groups
        return torch.cat([self._part(i, size) for i in range(0, len(self._lengths), size)])

    def _part(self, first: int, size: int) -> Tensor:
        slots = slice(first, first + size)
        span = bucketed(int(self._lengths[slots].max()))
        keys, values = self._cache[:, slots, :, :span]
        return products_for_one(self._query[slots], keys, values, self._mask[slots, ..., :span])


def lengths_in_a_run(lengths: Lengths, slots: int, rng: np.random.Generator) -> np.ndarray:
    """Return cached positions of `slots` slots in the middle of a run, int64 [slots].

    A long answer is met more often than a short one, and each at any of its tokens.
    """
    drawn = np.array(lengths.draw(4096))
    answers = rng.choice(drawn, slots, p=drawn / drawn.sum())
    cached: np.ndarray = _PROMPT + 1 + (rng.random(slots) * answers).astype(np.int64)
    return cached


def _cpu_s(attention: StepAttention, groups: int) -> float:
    found = []
    for _ in range(_REPEATS):
        started = time.process_time()
        attention(groups)
        found.append(time.process_time() - started)
    return min(found)


def _shares(states: Sequence[StepAttention]) -> str:
    costs = {groups: sum(_cpu_s(state, groups) for state in states) for groups in _GROUPS}
    shares = (f"{groups}: {cost / costs[1]:.0%}" for groups, cost in costs.items())
    return f"{1000 * costs[1] / len(states):.2f} ms; groups: {', '.join(shares)}"


@torch.inference_mode()
def _print_all() -> None:
    rng, sizes = np.random.default_rng(0), Proportions()
    head_dim = sizes.text_width // sizes.text_heads
    print(f"{processor()}, {sizes.text_heads} heads of {head_dim}")
    for name, lengths in (("brief", BRIEF_LENGTHS), ("detailed", DETAILED_LENGTHS)):
        for slots in _SLOTS:
            drawn = [lengths_in_a_run(lengths, slots, rng) for _ in range(_STATES)]
            for order in (np.asarray, np.sort):
                states = [
                    StepAttention(order(each), heads=sizes.text_heads, head_dim=head_dim)
                    for each in drawn
                ]
                sorting = "sorted" if order is np.sort else "as they come"
                print(f"{name}, {slots} slots, {sorting}: {_shares(states)}", flush=True)


if __name__ == "__main__":
    with one_torch_thread():
        _print_all()
