"""The text model: one forward pass for prefill, extension and decode."""

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import embedding

from kosmos2_core.checkpoint.load import IMAGE_POSITIONS, Checkpoint
from kosmos2_core.engine.model.attention import Attention, attention_for
from kosmos2_core.engine.model.kv_cache import KVCache, bucketed
from kosmos2_core.engine.model.placement import Place, Tokens
from kosmos2_core.engine.model.transfer import sent
from kosmos2_core.engine.model.weights import Backend, LayerNorm, fused, head, taken

_FIRST_POSITION = 2  # of the table of positions: fairseq numbers from padding + 1


class Step(Protocol):
    """`Decoder.step`, or what stands for it, in slots from 0."""

    def __call__(self, cache: KVCache, ids: Tensor, starts: Tensor, *, span: int) -> Tensor: ...


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
        self._head = head(checkpoint.model.text_model.lm_head, backend)

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
        if images is None and all(len(row) == 1 for row in tokens.ids):
            ids, starts = (
                sent(v, self._device) for v in ([i for (i,) in tokens.ids], tokens.starts)
            )
            span = bucketed(max(tokens.starts) + 1)
            return self.step(cache, ids, starts, span=span, first_slot=tokens.first_slot)
        place = Place.of_rows(cache, tokens)
        ids = sent(tokens.padded(self._padding), self._device)  # [N, T]
        x = embedding(ids, self._embedding)  # [N, T, D]
        if images is not None:
            x[:, IMAGE_POSITIONS] = images
        return self._forward(self._placed(x, ids, place.positions), cache, place)

    def step(
        self, cache: KVCache, ids: Tensor, starts: Tensor, *, span: int, first_slot: int = 0
    ) -> Tensor:
        """Logits [N, V] after one token of each of N neighbouring slots: int64 [N] each.

        `span` is a bucket that holds every row's position. Nothing but tensors and `span` goes
        in, so that a step can be compiled, and captured as a graph.
        """
        place = Place.of_step(cache, starts, span=span, first_slot=first_slot)
        rows = ids[:, None]
        x = embedding(rows, self._embedding)
        return self._forward(self._placed(x, rows, place.positions), cache, place)

    def _placed(self, x: Tensor, ids: Tensor, positions: Tensor) -> Tensor:
        """x [N, T, D] -> what the layers see: scaled, with what says where it stands.

        A generated padding token stands nowhere: its row of the table holds zeros.
        """
        numbers = (positions + _FIRST_POSITION).masked_fill(ids == self._padding, self._padding)
        return torch.add(embedding(numbers, self._positions), x, alpha=self._scale)

    def _forward(self, x: Tensor, cache: KVCache, place: Place) -> Tensor:
        for index, layer in enumerate(self._layers[:-1]):
            x = layer(x, cache, index, place)
        x = self._layers[-1].last(x, cache, len(self._layers) - 1, place)
        logits: Tensor = self._head(self._norm(x)).squeeze(1)
        return logits


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

    def __call__(self, x: Tensor, cache: KVCache, index: int, place: Place) -> Tensor:
        q = self._write(x, cache, index, place)
        return self._attend(x, q, place.mask, cache, index, place)

    def last(self, x: Tensor, cache: KVCache, index: int, place: Place) -> Tensor:
        """[N, T, D] -> [N, 1, D]: keys and values of all tokens, the rest for the last one."""
        q = self._write(x, cache, index, place)
        return self._attend(
            place.last_of(x), place.last_of(q), place.last_mask, cache, index, place
        )

    def _write(self, x: Tensor, cache: KVCache, index: int, place: Place) -> Tensor:
        """Keys and values into the cache; queries [N, T, H, D / H]."""
        qkv = self._qkv(self._norm1(x)).unflatten(-1, (3, self._heads, -1))
        place.write(cache, index, qkv[:, :, 1:])
        queries: Tensor = qkv[:, :, 0]
        return queries

    def _attend(
        self, x: Tensor, q: Tensor, mask: Tensor, cache: KVCache, index: int, place: Place
    ) -> Tensor:
        k, v = cache.read(index, place.first_slot, len(x), place.span)
        attended = self._attention(q.transpose(1, 2), k, v, mask)
        x = x + self._out(self._inner_norm(attended.transpose(1, 2).flatten(2)))
        return x + self._fc2(self._ffn_norm(self._fc1(self._norm2(x))))
