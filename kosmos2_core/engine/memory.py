"""What is kept for every slot."""

from dataclasses import dataclass

from kosmos2_core.engine.kv_cache import KVCache
from kosmos2_core.engine.ngrams import NgramHistory


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotMemory:
    """Belongs to one run at a time. `history` is None where no n-gram is banned."""

    cache: KVCache
    history: NgramHistory | None

    def reserve(self, length: int) -> None:
        """Room for sequences of that many tokens in every slot."""
        self.cache.reserve(length)
        if self.history is not None:
            self.history.reserve(length)

    def move(self, slot: int, to: int) -> None:
        self.cache.move(slot, to)
        if self.history is not None:
            self.history.move(slot, to)
