"""What is trained: the model, the factors of its location embeddings, and heads for its patches.

The heads and the factors are dropped or folded when a checkpoint is written.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize
from transformers import Kosmos2Config, Kosmos2ForConditionalGeneration

from kosmos2_core.locations import CELLS, GRID, IMAGE_SIZE
from kosmos2_core.shapes.painting import INSIDE
from kosmos2_core.shapes.ranges import MAX_OBJECTS
from kosmos2_core.shapes.scenes import COLOURS
from kosmos2_core.shapes.tokens import IMAGE_TOKENS, shapes_ids
from kosmos2_core.shapes.training.batches import Pack, image_slots
from kosmos2_core.shapes.training.samples import PATCHES, SUBCELLS

PATCH_SIZE = IMAGE_SIZE // PATCHES
MASK_LAYER = 2  # the layer after which the mask head reads

# CLIP's, as the real checkpoint's preprocessor_config.json has them.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    vision_width: int
    vision_layers: int
    vision_heads: int
    text_width: int
    text_layers: int
    text_heads: int


# 3.7 M parameters, 7.5 MB as float16.
FULL = Size(
    vision_width=192,
    vision_layers=5,
    vision_heads=6,
    text_width=128,
    text_layers=4,
    text_heads=4,
)
TINY = Size(
    vision_width=32, vision_layers=2, vision_heads=2, text_width=32, text_layers=1, text_heads=2
)


def make_model(size: Size) -> Kosmos2ForConditionalGeneration:
    """Without weights worth keeping; eager attention, because SDPA's backward is slow in bfloat16
    on the CPU."""
    config = Kosmos2Config(
        vision_config={
            "hidden_size": size.vision_width,
            "num_hidden_layers": size.vision_layers,
            "num_attention_heads": size.vision_heads,
            "intermediate_size": 4 * size.vision_width,
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
    """All token embeddings; that of the location in column x and row y is X[x] + Y[y] + R[cell],
    so that every box teaches something of its whole row and column."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.words = nn.Parameter(torch.empty(shapes_ids().first_location, width))
        self.columns = nn.Parameter(torch.empty(GRID, width))
        self.rows = nn.Parameter(torch.empty(GRID, width))
        self.cells = nn.Parameter(torch.empty(CELLS, width))

    def forward(self) -> Tensor:
        """[vocabulary, width]"""
        grid = self.rows[:, None] + self.columns[None]  # [y, x, width]
        return torch.cat([self.words, grid.flatten(0, 1) + self.cells])


@dataclass(frozen=True, slots=True)
class HeadOutputs:
    """Of B x 64 patches: is_object [B, 64], colour, shape, rank [B, 64, classes], edges
    [B, 64, 4, 32]."""

    is_object: Tensor
    colour: Tensor
    shape: Tensor
    rank: Tensor
    edges: Tensor


class PatchHeads(nn.Module):
    """Reads vectors of unit length [B, 64, width], scaled to unit variance."""

    WIDTHS = (1, len(COLOURS), len(INSIDE), MAX_OBJECTS, 4 * GRID)

    def __init__(self, width: int, gain: float) -> None:
        super().__init__()
        self.gain = gain
        self.linear = nn.Linear(width, sum(self.WIDTHS))

    def forward(self, vectors: Tensor) -> HeadOutputs:
        said = self.linear(vectors * self.gain).float()
        is_object, colour, shape, rank, edges = said.split(self.WIDTHS, dim=-1)
        return HeadOutputs(
            is_object.squeeze(-1), colour, shape, rank, edges.unflatten(-1, (4, GRID))
        )


class Learner(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.model = make_model(size)
        self.table = LocationTable(size.text_width)
        self.patch_heads = PatchHeads(size.vision_width, math.sqrt(size.vision_width))
        self.latent_heads = PatchHeads(size.text_width, math.sqrt(size.text_width))
        self.mask_head = nn.Linear(size.vision_width, SUBCELLS**2)
        self.count_head = nn.Linear(size.vision_width, MAX_OBJECTS + 1)

    def see(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 [B, 3, 224, 224] -> features of unit length [B, 65, D], mask logits
        [B, 64, 49]."""
        vision = self.model.vision_model.model
        levels = pixels.float() / 255
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
        hidden = vision.pre_layrnorm(vision.embeddings((levels - mean) / std))
        mask = hidden
        for number, layer in enumerate(vision.encoder.layers, start=1):
            hidden = layer(hidden, None)
            if number == MASK_LAYER:
                mask = hidden
        features = normalize(vision.post_layernorm(hidden).float(), dim=-1)
        return features, self.mask_head(mask[:, 1:]).float()

    def latents(self, features: Tensor) -> Tensor:
        """[B, 65, D] -> image embeddings [B, 64, E]."""
        embeds: Tensor = self.model.image_to_text_projection(features)[0]
        return embeds

    def count(self, features: Tensor) -> Tensor:
        """Logits [B, 7], from the class token."""
        gain = self.patch_heads.gain
        logits: Tensor = self.count_head(features[:, 0] * gain).float()
        return logits

    def read(self, pack: Pack, latents: Tensor, table: Tensor) -> Tensor:
        """Hidden states [B, T, E] of the packed exercises, as the model's own text decoder."""
        text = self.model.text_model.model
        embeds = table[pack.ids]
        embeds[:, image_slots()] = latents.to(embeds.dtype)
        positions = text.embed_positions.weights[pack.positions]
        hidden = embeds * text.embed_scale + positions
        mask = pack.mask()
        for layer in text.layers:
            hidden = layer(hidden, mask)
        states: Tensor = text.layer_norm(hidden)
        return states


def word_logits(states: Tensor, table: Tensor) -> Tensor:
    """[N, E] -> [N, vocabulary]"""
    return linear(states, table).float()
