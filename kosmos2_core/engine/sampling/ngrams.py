"""The n-gram ban: a run of `size` tokens occurs only once in prompt and answer."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kosmos2_core.engine.model.transfer import to_device

_NOTHING = -1  # in `_ids`: no token yet, or one that counts for no n-gram
_UNMATCHED = -2  # equals nothing in `_ids`


class NgramHistory:
    """The tokens of every slot, on the device: int64 [slots, length].

    `counted` int64 [V] maps each token to itself, or to -1 where no n-gram that holds it is
    banned. Image placeholders count as what they are, as with Hugging Face's
    NoRepeatNGramLogitsProcessor, which this follows, unless they are mapped too.
    """

    def __init__(self, *, size: int, slots: int, length: int, counted: Tensor) -> None:
        self._size = size
        self._counted = counted
        self._ids = counted.new_full((slots, length), _NOTHING)
        self._positions = torch.arange(length, device=counted.device)

    def begin(self, first_slot: int, rows: Sequence[Sequence[int]], skip: int = 0) -> None:
        """Prompts in slots from `first_slot` on; the first `skip` tokens count for no n-gram."""
        longest = max(map(len, rows))
        padded = [[*row, *[row[-1]] * (longest - len(row)), len(row)] for row in rows]
        both = to_device(padded, self._ids.device)
        is_padding = self._positions[:longest] >= both[:, -1:]
        held = self._ids[first_slot : first_slot + len(rows)]
        held.fill_(_NOTHING)
        held[:, :longest] = self._counted[both[:, :-1]].masked_fill_(is_padding, _NOTHING)
        held[:, :skip].fill_(_NOTHING)

    def append(self, slots: Tensor, lengths: Tensor, tokens: Tensor) -> None:
        """int64 [N] each: the next token of each slot that holds `lengths` tokens."""
        self._ids[slots, lengths] = self._counted[tokens]

    def move(self, slot: int, to: int) -> None:
        self._ids[to] = self._ids[slot]

    def banned(self, slots: Tensor, lengths: Tensor, vocabulary_size: int, *, span: int) -> Tensor:
        """bool [N, V]: what would complete a run that has been, in the first `span` tokens."""
        ids = self._ids[:, :span][slots]  # [N, span]
        back = torch.arange(1 - self._size, 0, device=ids.device)
        prefix = ids.gather(1, lengths[:, None] + back)  # [N, size - 1]
        prefix = prefix.masked_fill(prefix == _NOTHING, _UNMATCHED)
        windows = ids.unfold(1, self._size, 1)  # [N, span - size + 1, size]
        is_match = (windows[..., :-1] == prefix[:, None]).all(-1) & (windows[..., -1] >= 0)
        # What is not banned goes to a spare column behind the vocabulary.
        columns = windows[..., -1].where(is_match, vocabulary_size)
        mask = torch.zeros(len(ids), vocabulary_size + 1, dtype=torch.bool, device=ids.device)
        return mask.scatter_(1, columns, True)[:, :vocabulary_size]
