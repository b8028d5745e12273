"""The trained module: the model, factors of its location embeddings, and heads for its patches.

When a checkpoint is written, the factors are folded into the embeddings and the heads are dropped.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize
from transformers import Kosmos2Config, Kosmos2ForConditionalGeneration

from kosmos2_core.checkpoint.load import IMAGE_POSITIONS
from kosmos2_core.checkpoint.processor import MEAN, STD
from kosmos2_core.grounding.grid import CELLS, GRID, IMAGE_SIZE
from kosmos2_core.shapes.training.batches import Pack
from kosmos2_core.shapes.training.samples import ATTRIBUTES, PATCHES, SUBCELLS
from kosmos2_core.shapes.world.ranges import MAX_OBJECTS
from kosmos2_core.shapes.world.tokens import IMAGE_TOKENS, shapes_ids

PATCH_SIZE = IMAGE_SIZE // PATCHES
# Layers of the vision tower, counted from 1. A tower with fewer layers uses its last one.
MASK_LAYER = 2  # its output is the input of the mask head
KIND_LAYER = 3  # its output is the input of the head of colours and shapes
TWIN_LAYERS = (4, 5)  # their first heads learn to attend to the other object of a kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The dimensions of a model."""

    vision_width: int
    vision_layers: int
    vision_heads: int
    vision_ffn: int
    text_width: int
    text_layers: int
    text_heads: int


# 3.6 M parameters, 7.2 MB as float16.
FULL = Size(
    vision_width=192,
    vision_layers=6,
    vision_heads=6,
    vision_ffn=512,
    text_width=128,
    text_layers=4,
    text_heads=4,
)


def make_model(size: Size) -> Kosmos2ForConditionalGeneration:
    """Make a model that is not initialised yet.

    Attention is eager, because SDPA's backward pass is slow in bfloat16 on the CPU.
    """
    config = Kosmos2Config(
        vision_config={
            "hidden_size": size.vision_width,
            "num_hidden_layers": size.vision_layers,
            "num_attention_heads": size.vision_heads,
            "intermediate_size": size.vision_ffn,
            "patch_size": PATCH_SIZE,
        },
        text_config={
            "vocab_size": shapes_ids().first_location + CELLS,
            "embed_dim": size.text_width,
            "layers": size.text_layers,
            "attention_heads": size.text_heads,
            "ffn_dim": 4 * size.text_width,
            "dropout": 0.0,
            "attention_dropout": 0.0,
            "activation_dropout": 0.0,
        },
        latent_query_num=IMAGE_TOKENS,
    )
    return Kosmos2ForConditionalGeneration._from_config(config, attn_implementation="eager")


class LocationTable(nn.Module):
    """All token embeddings.

    The embedding of the location in column x and row y is X[x] + Y[y] + R[cell], so that each box
    trains its whole row and column.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.words = nn.Parameter(torch.empty(shapes_ids().first_location, width))
        self.columns = nn.Parameter(torch.empty(GRID, width))
        self.rows = nn.Parameter(torch.empty(GRID, width))
        self.cells = nn.Parameter(torch.empty(CELLS, width))

    def forward(self) -> Tensor:
        """Return the embeddings, [vocabulary, width]."""
        grid = self.rows[:, None] + self.columns[None]  # [y, x, width]
        return torch.cat([self.words, grid.flatten(0, 1) + self.cells])


@dataclass(frozen=True, slots=True)
class HeadOutputs:
    """Logits of B x 64 patches.

    is_object: [B, 64]. edges: [B, 64, 4, 32]. attributes: [B, 64, classes], by `ATTRIBUTES`.
    """

    is_object: Tensor
    edges: Tensor
    attributes: dict[str, Tensor]


class PatchHeads(nn.Module):
    """Heads for vectors of unit length [B, 64, width], scaled to unit variance."""

    def __init__(self, width: int, gain: float) -> None:
        super().__init__()
        self.gain = gain
        self.linear = nn.Linear(width, 1 + 4 * GRID + sum(ATTRIBUTES.values()))

    def forward(self, vectors: Tensor) -> HeadOutputs:
        said = self.linear(vectors * self.gain).float()
        is_object, edges, *others = said.split((1, 4 * GRID, *ATTRIBUTES.values()), dim=-1)
        return HeadOutputs(
            is_object.squeeze(-1),
            edges.unflatten(-1, (4, GRID)),
            dict(zip(ATTRIBUTES, others, strict=True)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionOutputs:
    """Outputs of the vision tower for B images.

    features: [B, 65, D], of unit length, the class token first. mask: logits [B, 64, 49].
    kind: logits [B, 64, colours + shapes] of a middle layer. twins: for each of `TWIN_LAYERS`, the
    logarithm of the attention of its first head, [B, 64 patches, 65 tokens].
    """

    features: Tensor
    mask: Tensor
    kind: Tensor
    twins: tuple[Tensor, ...]


class Learner(nn.Module):
    """The model with all that is trained beside it."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.model = make_model(size)
        self.table = LocationTable(size.text_width)
        self.patch_heads = PatchHeads(size.vision_width, math.sqrt(size.vision_width))
        self.latent_heads = PatchHeads(size.text_width, math.sqrt(size.text_width))
        self.mask_head = nn.Linear(size.vision_width, SUBCELLS**2)
        self.kind_head = nn.Sequential(
            nn.LayerNorm(size.vision_width),
            nn.Linear(size.vision_width, ATTRIBUTES["colour"] + ATTRIBUTES["shape"]),
        )
        self.count_head = nn.Linear(size.vision_width, MAX_OBJECTS + 1)

    def encode(self, pixels: Tensor) -> VisionOutputs:
        """Run the vision tower on `pixels`, uint8 [B, 3, 224, 224]."""
        vision = self.model.vision_model.model
        hidden = vision.pre_layrnorm(vision.embeddings(normalised(pixels)))
        states = [hidden]
        for layer in vision.encoder.layers:
            states.append(layer(states[-1], None))
        last = len(states) - 1
        return VisionOutputs(
            features=normalize(vision.post_layernorm(states[-1]).float(), dim=-1),
            mask=self.mask_head(states[min(MASK_LAYER, last)][:, 1:]).float(),
            kind=self.kind_head(states[min(KIND_LAYER, last)][:, 1:]).float(),
            twins=tuple(_first_head(layer, states[at]) for at, layer in self.twin_layers()),
        )

    def twin_layers(self) -> list[tuple[int, Any]]:
        """Return index, from 0, and layer of each of `TWIN_LAYERS`."""
        layers = self.model.vision_model.model.encoder.layers
        numbers = sorted({min(number, len(layers)) for number in TWIN_LAYERS})
        return [(number - 1, layers[number - 1]) for number in numbers]

    def latents(self, features: Tensor) -> Tensor:
        """Convert features [B, 65, D] to image embeddings [B, 64, E]."""
        embeds: Tensor = self.model.image_to_text_projection(features)[0]
        return embeds

    def count(self, features: Tensor) -> Tensor:
        """Return logits [B, 7] of the number of objects, from the class token."""
        gain = self.patch_heads.gain
        logits: Tensor = self.count_head(features[:, 0] * gain).float()
        return logits

    def decode(self, pack: Pack, latents: Tensor, table: Tensor) -> Tensor:
        """Return hidden states [B, T, E] of the packed exercises, as the model's text decoder."""
        text = self.model.text_model.model
        embeds = table[pack.ids]
        embeds[:, IMAGE_POSITIONS] = latents.to(embeds.dtype)
        positions = text.embed_positions.weights[pack.positions]
        hidden = embeds * text.embed_scale + positions
        mask = pack.mask()
        for layer in text.layers:
            hidden = layer(hidden, mask)
        states: Tensor = text.layer_norm(hidden)
        return states


def normalised(pixels: Tensor) -> Tensor:
    """Normalise uint8 [B, 3, H, W] to float32, as the processor does."""
    mean, std = (torch.tensor(values).view(3, 1, 1) * 255 for values in (MEAN, STD))
    return pixels.float().sub_(mean).mul_(1 / std)


def _first_head(layer: Any, hidden: Tensor) -> Tensor:
    """Return the logarithm of the attention of a layer's first head, [B, 64, 65]."""
    attention = layer.self_attn
    width = attention.head_dim
    states = layer.layer_norm1(hidden)
    query, key = (
        linear(states, projection.weight[:width], projection.bias[:width])
        for projection in (attention.q_proj, attention.k_proj)
    )
    logs: Tensor = (query[:, 1:] @ key.mT * attention.scale).float().log_softmax(-1)
    return logs


def word_logits(states: Tensor, table: Tensor) -> Tensor:
    """Convert hidden states [N, E] to logits [N, vocabulary]."""
    return linear(states, table).float()
