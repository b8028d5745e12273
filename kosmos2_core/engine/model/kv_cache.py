"""Keys and values of every slot, allocated once.

A slot's positions beyond its sequence hold what an earlier one left there. The mask hides it,
as long as it is finite: zero times NaN is NaN, so a slot that held NaN must be cleared.
"""

import torch
from torch import Tensor

BUCKET = 16  # positions; spans are rounded up to it, so that few shapes occur


def bucketed(length: int) -> int:
    return -(-length // BUCKET) * BUCKET


class KVCache:
    """[layers, 2, slots, heads, length, head_dim]: keys and values in one write.

    Slots and heads lie side by side, so that a product of matrices takes them as one batch.
    """

    def __init__(
        self,
        *,
        layers: int,
        slots: int,
        heads: int,
        length: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        shape = (layers, 2, slots, heads, bucketed(length), head_dim)
        self.data = torch.zeros(shape, dtype=dtype, device=device)
        self.slots = torch.arange(slots, device=device)
        hidden = self.data.new_full((self.length, self.length), -torch.inf)
        self._mask = hidden.triu_(1)

    @property
    def length(self) -> int:
        return self.data.shape[4]

    def write_block(self, layer: int, first_slot: int, start: int, kv: Tensor) -> None:
        """kv [N, T, 2, H, D / H] into slots from `first_slot`, positions from `start`."""
        n, t = kv.shape[:2]
        block = self.data[layer, :, first_slot : first_slot + n, :, start : start + t]
        block.copy_(kv.permute(2, 0, 3, 1, 4))

    def write_step(self, layer: int, slots: Tensor, positions: Tensor, kv: Tensor) -> None:
        """kv [N, 2, H, D / H], one position of each slot."""
        self.data[layer][:, slots, :, positions] = kv

    def read(self, layer: int, first_slot: int, n: int, span: int) -> tuple[Tensor, Tensor]:
        """Keys and values [N, H, span, D / H] of the positions before `span`."""
        keys, values = self.data[layer, :, first_slot : first_slot + n, :, :span]
        return keys, values

    def mask(self, positions: Tensor, span: int) -> Tensor:
        """[N, T] -> [N, 1, T, span], 0 for what a token at that position sees, else -inf."""
        return self._mask[:, :span][positions].unsqueeze(1)

    def prefix(self, slot: int, length: int) -> Tensor:
        """A copy of a slot's first positions: [layers, 2, heads, length, D / H]."""
        return self.data[:, :, slot, :, :length].clone()

    def write_prefix(self, slot: int, prefix: Tensor) -> None:
        self.data[:, :, slot, :, : prefix.shape[3]] = prefix

    def move(self, slot: int, to: int, length: int) -> None:
        """The first `length` positions; a sequence has no more."""
        self.data[:, :, to, :, :length] = self.data[:, :, slot, :, :length]

    def clear(self, slot: int) -> None:
        self.data[:, :, slot] = 0
