"""What is kept for every slot."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from kosmos2_core.engine.cuda_graphs import DecodeGraphs
from kosmos2_core.engine.model.kv_cache import KVCache
from kosmos2_core.engine.requests import Prompt
from kosmos2_core.engine.sampling.constraints import Constraints


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotMemory:
    """Belongs to one run at a time. `constraints` is None where nothing is banned.

    `tokens` int64 [slots]: the last token of each, which no step has read yet. `graphs` compute a
    step on CUDA; None where it is computed operator by operator.
    """

    cache: KVCache
    tokens: Tensor
    constraints: Constraints | None
    graphs: DecodeGraphs | None = None

    def begin(self, first_slot: int, prompts: Sequence[Prompt]) -> None:
        """Prompts in the slots from `first_slot` on."""
        if self.constraints is not None:
            self.constraints.begin(first_slot, prompts)

    def move(self, slot: int, to: int, length: int) -> None:
        """A sequence of `length` tokens."""
        self.cache.move(slot, to, length)
        self.tokens[to] = self.tokens[slot]
        if self.constraints is not None:
            self.constraints.move(slot, to)
