"""The text model: one forward pass for prefill, extension and decode."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import embedding

from kosmos2_core.checkpoint.load import IMAGE_POSITIONS, Checkpoint
from kosmos2_core.engine.model.attention import Attention, attention_for
from kosmos2_core.engine.model.kv_cache import KVCache
from kosmos2_core.engine.model.placement import BatchPlacement, TokenBatch
from kosmos2_core.engine.model.weights import Backend, LayerNorm, detached, fused, lm_head

_FIRST_POSITION = 2  # of the table of positions: fairseq numbers from padding + 1


class Step(Protocol):
    """`TextDecoder.step`, or what stands for it, in slots from 0."""

    def __call__(self, cache: KVCache, ids: Tensor, starts: Tensor, *, span: int) -> Tensor: ...


class TextDecoder:
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
        layers = detached(model.layers, keep=keep_model)
        self._layers = [_Layer(layer, backend, attention) for layer in layers]
        self._norm = LayerNorm(model.layer_norm)
        self._head = lm_head(checkpoint.model.text_model.lm_head, backend)

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

    def __call__(self, cache: KVCache, batch: TokenBatch, images: Tensor | None = None) -> Tensor:
        """Logits [N, V] of what follows each row; its keys and values are in the cache then.

        `images` [N, 64, D] for rows that start with the image.
        """
        x, placement = self._embedded(cache, batch, images)
        return self._forward(x, cache, placement)

    def stages(self, ids: Sequence[int], images: Tensor | None) -> Iterator[tuple[str, Tensor]]:
        """Yield the name and output of each layer for one row, in a cache of its own."""
        cache = self.new_cache(1, len(ids))
        batch = TokenBatch(first_slot=0, ids=[ids], start=0)
        x, placement = self._embedded(cache, batch, images)
        yield "the embedding of the text model", x
        for index, layer in enumerate(self._layers):
            x = layer(x, cache, index, placement)
            yield f"layer {index + 1} of {len(self._layers)} of the text model", x
        yield "the head of the text model", self._head(self._norm(x))

    def step(self, cache: KVCache, ids: Tensor, starts: Tensor, *, span: int) -> Tensor:
        """Logits [N, V] after one token of each of the slots 0 .. N - 1: int64 [N] each.

        `span` is a bucket that holds every row's position. Nothing but tensors and `span` goes
        in, so that a step can be compiled, and captured as a graph.
        """
        placement = BatchPlacement.of_step(cache, starts, span=span)
        rows = ids[:, None]
        x = embedding(rows, self._embedding)
        return self._forward(self._placed(x, rows, placement.positions), cache, placement)

    def _embedded(
        self, cache: KVCache, batch: TokenBatch, images: Tensor | None
    ) -> tuple[Tensor, BatchPlacement]:
        """[N, T, D]: what the first layer sees."""
        ids, last = batch.on_device(self._device, self._padding)
        placement = BatchPlacement.of_batch(cache, batch, last)
        x = embedding(ids, self._embedding)  # [N, T, D]
        if images is not None:
            x[:, IMAGE_POSITIONS] = images
        return self._placed(x, ids, placement.positions), placement

    def _placed(self, x: Tensor, ids: Tensor, positions: Tensor) -> Tensor:
        """x [N, T, D] -> what the layers see: scaled, with what says where it stands.

        A generated padding token stands nowhere: its row of the table holds zeros.
        """
        numbers = (positions + _FIRST_POSITION).masked_fill(ids == self._padding, self._padding)
        return torch.add(embedding(numbers, self._positions), x, alpha=self._scale)

    def _forward(self, x: Tensor, cache: KVCache, placement: BatchPlacement) -> Tensor:
        for index, layer in enumerate(self._layers[:-1]):
            x = layer(x, cache, index, placement)
        x = self._layers[-1].last(x, cache, len(self._layers) - 1, placement)
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

    def __call__(self, x: Tensor, cache: KVCache, index: int, placement: BatchPlacement) -> Tensor:
        q, k, v = self._project(x, cache, index, placement)
        return self._attend(x, q, k, v, placement.mask)

    def last(self, x: Tensor, cache: KVCache, index: int, placement: BatchPlacement) -> Tensor:
        """[N, T, D] -> [N, 1, D]: keys and values of all tokens, the rest for the last one."""
        q, k, v = self._project(x, cache, index, placement)
        return self._attend(placement.last_of(x), placement.last_of(q), k, v, placement.last_mask)

    def _project(
        self, x: Tensor, cache: KVCache, index: int, placement: BatchPlacement
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [N, T, H, D / H]; keys and values [N, H, span, D / H], the new ones cached."""
        qkv = self._qkv(self._norm1(x)).unflatten(-1, (3, self._heads, -1))
        placement.write(cache, index, qkv[:, :, 1:])
        keys, values = cache.read(index, placement.first_slot, len(x), placement.span)
        return qkv[:, :, 0], keys, values

    def _attend(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        attended = self._attention(q.transpose(1, 2), k, v, mask)
        x = x + self._out(self._inner_norm(attended.transpose(1, 2).flatten(2)))
        return x + self._fc2(self._ffn_norm(self._fc1(self._norm2(x))))
