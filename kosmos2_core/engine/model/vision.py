"""Pixels -> image embeddings: vision tower and resampler, as Kosmos2ForConditionalGeneration."""

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import conv2d, normalize, scaled_dot_product_attention

from kosmos2_core.checkpoint.load import Checkpoint
from kosmos2_core.engine.model.transfer import to_device
from kosmos2_core.engine.model.weights import Backend, LayerNorm, detached, fused, perceptron


class EncodesImages(Protocol):
    """The call of `VisionEncoder`, or of what stands for it."""

    def __call__(self, pixels: Tensor) -> Tensor: ...


class VisionEncoder:
    """uint8 [N, 3, 224, 224] on the CPU -> [N, 64, D] in the model's dtype on its device."""

    def __init__(
        self, checkpoint: Checkpoint, backend: Backend, *, keep_model: bool = True
    ) -> None:
        self._checkpoint = checkpoint
        tower = checkpoint.model.vision_model.model
        embeddings = tower.embeddings
        self._patches = embeddings.patch_embedding
        self._class: Tensor = embeddings.class_embedding.detach()
        self._positions: Tensor = embeddings.position_embedding.weight.detach()
        self._before = LayerNorm(tower.pre_layrnorm)
        layers = detached(tower.encoder.layers, keep=keep_model)
        self._layers = [_Layer(layer, backend) for layer in layers]
        self._after = LayerNorm(tower.post_layernorm)
        self._resampler = _Resampler(checkpoint.model.image_to_text_projection, backend)

    def __call__(self, pixels: Tensor) -> Tensor:
        for _, x in self.stages(pixels):
            output = x
        return output

    def stages(self, pixels: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield the name and output of each layer; the last output is that of the encoder."""
        pixels = self._checkpoint.normalised(to_device(pixels, self._checkpoint.device))
        x = self._before(self._embed(pixels))
        yield "the patch embedding of the vision tower", x
        for number, layer in enumerate(self._layers, 1):
            x = layer(x)
            yield f"layer {number} of {len(self._layers)} of the vision tower", x
        yield "the resampler", self._resampler(normalize(self._after(x), dim=-1))

    def _embed(self, pixels: Tensor) -> Tensor:
        grid = conv2d(pixels, self._patches.weight, stride=self._patches.stride)  # [N, D, h, w]
        patches = grid.flatten(2).transpose(1, 2)  # [N, h w, D]
        first = self._class.expand(len(pixels), 1, -1)
        return torch.cat([first, patches], dim=1) + self._positions  # [N, 1 + h w, D]


class _Layer:
    def __init__(self, layer: Any, backend: Backend) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._heads: int = attention.num_heads
        self._norm1, self._norm2 = LayerNorm(layer.layer_norm1), LayerNorm(layer.layer_norm2)
        self._qkv = fused([attention.q_proj, attention.k_proj, attention.v_proj], backend)
        self._out = fused([attention.out_proj], backend)
        self._mlp = perceptron(mlp.fc1, mlp.fc2, backend, attention.config.hidden_act)

    def __call__(self, x: Tensor) -> Tensor:
        qkv = self._qkv(self._norm1(x)).unflatten(-1, (3, self._heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each [N, H, P, D / H]
        attended = scaled_dot_product_attention(q, k, v)
        x = x + self._out(attended.transpose(1, 2).flatten(2))
        return x + self._mlp(self._norm2(x))


class _Resampler:
    """64 learnt queries look at the image's features and at themselves."""

    def __init__(self, projection: Any, backend: Backend) -> None:
        attention = projection.x_attn
        self._heads: int = attention.num_heads
        self._dense = fused([projection.dense], backend)
        self._kv = fused([attention.k_proj, attention.v_proj], backend)
        self._out = fused([attention.out_proj], backend)
        with torch.no_grad():  # neither depends on the image
            latents = projection.latent_query.detach()[None]
            query = attention.q_proj(latents).unflatten(-1, (self._heads, -1))
            self._query = query.transpose(1, 2)  # [1, H, 64, D / H]
            self._latent_kv = self._kv(latents)  # [1, 64, 2 D]

    def __call__(self, features: Tensor) -> Tensor:
        n = len(features)
        kv = torch.cat([self._kv(self._dense(features)), self._latent_kv.expand(n, -1, -1)], dim=1)
        k, v = kv.unflatten(-1, (2, self._heads, -1)).permute(
            2, 0, 3, 1, 4
        )  # [N, H, P + 64, D / H]
        query = self._query.expand(n, -1, -1, -1)
        attended = scaled_dot_product_attention(query, k, v)
        return self._out(attended.transpose(1, 2).flatten(2))
