"""New tokens, and where in the cache a forward pass reads and writes for them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kosmos2_core.engine.model.kv_cache import KVCache, bucketed
from kosmos2_core.engine.model.transfer import to_device


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBatch:
    """New tokens of `len(ids)` neighbouring slots from `first_slot` on, from position `start` on.

    Rows may differ in length: they are padded on the right, where nothing that counts sees it.
    """

    first_slot: int
    ids: Sequence[Sequence[int]]
    start: int

    @property
    def longest(self) -> int:
        return max(map(len, self.ids))

    def on_device(self, device: torch.device, padding: int) -> tuple[Tensor, Tensor]:
        """Padded ids [N, T] and the number of each row's last token [N], in one transfer."""
        longest = self.longest
        rows = [[*row, *[padding] * (longest - len(row)), len(row) - 1] for row in self.ids]
        both = to_device(rows, device)
        return both[:, :-1], both[:, -1]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlacement:
    """Where the rows of a batch read and write in the cache; made once for all layers.

    `positions` int64 [N or 1, T] in the sequences; `mask` [N or 1, 1, T, span], `last_mask`
    [N, 1, 1, span] for the last token of each row alone; `slots` and `last` (its number in the
    row) int64 [N].
    """

    first_slot: int
    start: int
    span: int
    positions: Tensor
    mask: Tensor
    last_mask: Tensor
    slots: Tensor
    last: Tensor | None

    @classmethod
    def of_batch(cls, cache: KVCache, batch: TokenBatch, last: Tensor) -> "BatchPlacement":
        """`last` int64 [N]: the number of each row's last token."""
        start, first = batch.start, batch.first_slot
        span = bucketed(start + batch.longest)
        device = cache.data.device
        positions = torch.arange(start, start + batch.longest, device=device)[None]
        return cls(
            first_slot=first,
            start=start,
            span=span,
            positions=positions,
            mask=cache.mask(positions, span),
            last_mask=cache.mask(start + last[:, None], span),
            slots=cache.slots[first : first + len(batch.ids)],
            last=last,
        )

    @classmethod
    def of_step(cls, cache: KVCache, starts: Tensor, *, span: int) -> "BatchPlacement":
        """One token per slot from slot 0 on, each at its own position."""
        positions = starts[:, None]
        mask = cache.mask(positions, span)
        return cls(
            first_slot=0,
            start=0,
            span=span,
            positions=positions,
            mask=mask,
            last_mask=mask,
            slots=cache.slots[: len(starts)],
            last=None,
        )

    def write(self, cache: KVCache, layer: int, kv: Tensor) -> None:
        """kv [N, T, 2, H, D / H]."""
        if self.last is None:
            cache.write_step(layer, self.slots, self.positions[:, 0], kv[:, 0])
        else:
            cache.write_block(layer, self.first_slot, self.start, kv)

    def last_of(self, x: Tensor) -> Tensor:
        """[N, T, ...] -> [N, 1, ...]: the last real token of each row."""
        if self.last is None:
            return x
        return x[self.slots - self.first_slot, self.last].unsqueeze(1)
