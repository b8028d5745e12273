"""The text model: one forward pass for prefill, extension and decode."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding

from kosmos2_core.checkpoint import IMAGE_POSITIONS, Checkpoint
from kosmos2_core.engine.attention import Attention, attention_for
from kosmos2_core.engine.kv_cache import KVCache, bucketed
from kosmos2_core.engine.weights import Backend, LayerNorm, fused, taken

_FIRST_POSITION = 2  # of the table of positions: fairseq numbers from padding + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """New tokens of `len(ids)` neighbouring slots from `first_slot` on.

    Row i continues its slot at position `starts[i]`. Rows may differ in length if all start at
    the same position: they are padded on the right, where nothing that counts sees the padding.
    """

    first_slot: int
    ids: Sequence[Sequence[int]]
    starts: Sequence[int]


class Decoder:
    def __init__(
        self, checkpoint: Checkpoint, backend: Backend, *, keep_model: bool = True
    ) -> None:
        model = checkpoint.model.text_model.model
        self._config = model.config
        self._device = checkpoint.device
        self._dtype = checkpoint.dtype
        self._scale: float = model.embed_scale
        self._embedding: Tensor = model.embed_tokens.weight.detach()
        self._positions: Tensor = model.embed_positions.weights
        self._padding: int = model.embed_tokens.padding_idx
        attention = attention_for(backend, checkpoint.dtype)
        layers = taken(model.layers, keep=keep_model)
        self._layers = [_Layer(layer, backend, attention) for layer in layers]
        self._norm = LayerNorm(model.layer_norm)
        self._head = fused([checkpoint.model.text_model.lm_head], backend)

    def new_cache(self, slots: int, length: int) -> KVCache:
        config = self._config
        return KVCache(
            layers=config.layers,
            slots=slots,
            heads=config.attention_heads,
            length=length,
            head_dim=config.embed_dim // config.attention_heads,
            dtype=self._dtype,
            device=self._device,
        )

    def __call__(self, cache: KVCache, tokens: Tokens, images: Tensor | None = None) -> Tensor:
        """Logits [N, V] of what follows each row; its keys and values are in the cache then.

        `images` [N, 64, D] for rows that start with the image.
        """
        place = _Place.of(cache, tokens, self._device)
        x = self._embed(tokens, place.length, images)
        for index, layer in enumerate(self._layers[:-1]):
            x = layer(x, cache, index, place)
        x = self._layers[-1].last(x, cache, len(self._layers) - 1, place)
        logits: Tensor = self._head(self._norm(x)).squeeze(1)
        return logits

    def _embed(self, tokens: Tokens, length: int, images: Tensor | None) -> Tensor:
        padded = [[*row, *[self._padding] * (length - len(row))] for row in tokens.ids]
        ids = torch.tensor(padded, device=self._device)
        x = embedding(ids, self._embedding)  # [N, T, D]
        if images is not None:
            x[:, IMAGE_POSITIONS] = images
        return x * self._scale + embedding(self._numbers(padded, tokens.starts), self._positions)

    def _numbers(self, padded: list[list[int]], starts: Sequence[int]) -> Tensor:
        """Rows of the table of positions. A generated padding token has none: row `padding`."""
        numbers = [
            [self._padding if i == self._padding else at for at, i in enumerate(row, start)]
            for row, start in zip(padded, (s + _FIRST_POSITION for s in starts), strict=True)
        ]
        return torch.tensor(numbers, device=self._device)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where in the cache a forward pass reads and writes; made once for all layers.

    `mask` [N or 1, 1, T, span], `last_mask` [N, 1, 1, span] for the last token of each row
    alone; `slots`, `starts`, `last` int64 [N].
    """

    first_slot: int
    start: int
    length: int
    span: int
    mask: Tensor
    last_mask: Tensor
    slots: Tensor
    starts: Tensor
    last: Tensor

    @classmethod
    def of(cls, cache: KVCache, tokens: Tokens, device: torch.device) -> "_Place":
        length = max(map(len, tokens.ids))
        assert length == 1 or len(set(tokens.starts)) == 1, "longer rows start together"
        span = bucketed(max(tokens.starts) + length)
        starts = torch.tensor(tokens.starts, device=device)
        slots = torch.arange(len(starts), device=device)
        last = slots.new_tensor([len(row) - 1 for row in tokens.ids]) if length > 1 else slots
        last_mask = cache.mask((starts + last if length > 1 else starts)[:, None], span)
        block = torch.arange(tokens.starts[0], tokens.starts[0] + length, device=device)
        return cls(
            first_slot=tokens.first_slot,
            start=tokens.starts[0],
            length=length,
            span=span,
            mask=cache.mask(block[None], span) if length > 1 else last_mask,
            last_mask=last_mask,
            slots=slots + tokens.first_slot,
            starts=starts,
            last=last,
        )

    def last_of(self, x: Tensor) -> Tensor:
        """[N, T, ...] -> [N, 1, ...]: the last real token of each row."""
        if self.length == 1:
            return x
        return x[self.slots - self.first_slot, self.last].unsqueeze(1)


class _Layer:
    def __init__(self, layer: Any, backend: Backend, attend: Attention) -> None:
        attention, ffn = layer.self_attn, layer.ffn
        self._attention = attend
        self._heads: int = attention.num_heads
        self._norm1 = LayerNorm(layer.self_attn_layer_norm)
        self._norm2 = LayerNorm(layer.final_layer_norm)
        self._qkv = fused([attention.q_proj, attention.k_proj, attention.v_proj], backend)
        self._inner_norm = LayerNorm(attention.inner_attn_ln)
        self._out = fused([attention.out_proj], backend)
        self._fc1 = fused([ffn.fc1], backend, attention.config.activation_function)
        self._ffn_norm = LayerNorm(ffn.ffn_layernorm)
        self._fc2 = fused([ffn.fc2], backend)

    def __call__(self, x: Tensor, cache: KVCache, index: int, place: _Place) -> Tensor:
        q = self._write(x, cache, index, place)
        return self._attend(x, q, place.mask, cache, index, place)

    def last(self, x: Tensor, cache: KVCache, index: int, place: _Place) -> Tensor:
        """[N, T, D] -> [N, 1, D]: keys and values of all tokens, the rest for the last one."""
        q = self._write(x, cache, index, place)
        return self._attend(
            place.last_of(x), place.last_of(q), place.last_mask, cache, index, place
        )

    def _write(self, x: Tensor, cache: KVCache, index: int, place: _Place) -> Tensor:
        """Keys and values into the cache; queries [N, T, H, D / H]."""
        qkv = self._qkv(self._norm1(x)).unflatten(-1, (3, self._heads, -1))
        if place.length == 1:
            cache.write_step(index, place.slots, place.starts, qkv[:, 0, 1:])
        else:
            cache.write_block(index, place.first_slot, place.start, qkv[:, :, 1:])
        queries: Tensor = qkv[:, :, 0]
        return queries

    def _attend(
        self, x: Tensor, q: Tensor, mask: Tensor, cache: KVCache, index: int, place: _Place
    ) -> Tensor:
        k, v = cache.read(index, place.first_slot, len(x), place.span)
        attended = self._attention(q.transpose(1, 2), k, v, mask)
        x = x + self._out(self._inner_norm(attended.transpose(1, 2).flatten(2)))
        return x + self._fc2(self._ffn_norm(self._fc1(self._norm2(x))))
