"""The modules of Kosmos-2 with the names of Hugging Face's. They hold weights and compute nothing.

Hugging Face's own modules compute as well, but their import takes twice as long as torch's.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Kosmos2Config
from transformers.models.kosmos2.configuration_kosmos2 import Kosmos2TextConfig, Kosmos2VisionConfig

from kosmos2_core.checkpoint.files import CheckpointFiles

_FIRST_POSITION = 2  # rows of the table of positions before the first one


def model_config(files: CheckpointFiles) -> Kosmos2Config:
    """Read the configuration of a model. Raises CheckpointError."""
    try:
        return Kosmos2Config.from_dict(files.json("config.json"))
    except (TypeError, ValueError) as error:
        raise files.error(f"its config.json is no model's ({error}); fetch it again") from error


def model_modules(config: Kosmos2Config) -> Any:
    """Return the modules of a model. Their weights have shapes, and no data yet."""
    text, vision = config.text_config, config.vision_config
    with torch.device("meta"):
        return _group(
            config=config,
            text_model=_group(
                model=_text_model(text),
                lm_head=nn.Linear(text.embed_dim, text.vocab_size, bias=False),
            ),
            vision_model=_group(model=_vision_tower(vision)),
            image_to_text_projection=_group(
                dense=nn.Linear(vision.hidden_size, text.embed_dim),
                latent_query=nn.Parameter(torch.empty(config.latent_query_num, text.embed_dim)),
                x_attn=_attention(text, text.embed_dim, text.attention_heads),
            ),
        ).eval()


def positions_table(config: Kosmos2TextConfig) -> Tensor:
    """Return float32 [positions + 2, D]: a sine and a cosine of each frequency, by position.

    The row of the padding token holds zeros: padding has no position.
    """
    half = config.embed_dim // 2
    frequencies = torch.exp(torch.arange(half) * -(math.log(10_000) / (half - 1)))
    numbers = torch.arange(config.max_position_embeddings + _FIRST_POSITION)
    angles = numbers[:, None] * frequencies
    table = torch.cat([angles.sin(), angles.cos()], dim=1)
    table = nn.functional.pad(table, (0, config.embed_dim % 2))
    table[config.pad_token_id] = 0
    return table


def _text_model(config: Kosmos2TextConfig) -> Any:
    width = config.embed_dim
    positions = nn.Module()
    positions.register_buffer("weights", None, persistent=False)
    return _group(
        config=config,
        embed_scale=math.sqrt(width) if config.scale_embedding else 1.0,
        embed_tokens=_embedding(config.vocab_size, width, config.pad_token_id),
        embed_positions=positions,
        layers=nn.ModuleList(_text_layer(config) for _ in range(config.layers)),
        layer_norm=_norm(config, width),
    )


def _text_layer(config: Kosmos2TextConfig) -> Any:
    width = config.embed_dim
    attention = _attention(config, width, config.attention_heads)
    attention.inner_attn_ln = _norm(config, width)
    return _group(
        self_attn=attention,
        self_attn_layer_norm=_norm(config, width),
        ffn=_group(
            fc1=nn.Linear(width, config.ffn_dim),
            fc2=nn.Linear(config.ffn_dim, width),
            ffn_layernorm=_norm(config, config.ffn_dim),
        ),
        final_layer_norm=_norm(config, width),
    )


def _vision_tower(config: Kosmos2VisionConfig) -> Any:
    width, patch = config.hidden_size, config.patch_size
    return _group(
        embeddings=_group(
            class_embedding=nn.Parameter(torch.empty(width)),
            patch_embedding=nn.Conv2d(config.num_channels, width, patch, stride=patch, bias=False),
            position_embedding=_embedding((config.image_size // patch) ** 2 + 1, width),
        ),
        pre_layrnorm=_norm(config, width),
        encoder=_group(
            layers=nn.ModuleList(_vision_layer(config) for _ in range(config.num_hidden_layers))
        ),
        post_layernorm=_norm(config, width),
    )


def _vision_layer(config: Kosmos2VisionConfig) -> Any:
    width = config.hidden_size
    return _group(
        self_attn=_attention(config, width, config.num_attention_heads),
        layer_norm1=_norm(config, width),
        mlp=_group(
            fc1=nn.Linear(width, config.intermediate_size),
            fc2=nn.Linear(config.intermediate_size, width),
        ),
        layer_norm2=_norm(config, width),
    )


def _attention(config: Kosmos2TextConfig | Kosmos2VisionConfig, width: int, heads: int) -> Any:
    names = ("q_proj", "k_proj", "v_proj", "out_proj")
    projections = {name: nn.Linear(width, width) for name in names}
    return _group(config=config, num_heads=heads, **projections)


def _embedding(rows: int, width: int, padding: int | None = None) -> Any:
    """Return a table without initial values: those of a meta tensor import torch's compiler."""
    return nn.Embedding.from_pretrained(torch.empty(rows, width), padding_idx=padding)


def _norm(config: Kosmos2TextConfig | Kosmos2VisionConfig, width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=config.layer_norm_eps)


def _group(**parts: object) -> Any:
    """Return a module with these modules, parameters and other attributes."""
    group = nn.Module()
    for name, part in parts.items():
        setattr(group, name, part)
    return group
