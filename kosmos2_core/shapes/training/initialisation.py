"""Initialisation of the model for training.

The stock initialisation (standard deviation 0.02) is made for models fifteen times as wide.
"""

import math

import torch
from torch import Tensor, nn

from kosmos2_core.shapes.training.batches import make_batch
from kosmos2_core.shapes.training.learner import Learner
from kosmos2_core.shapes.training.samples import PATCHES

MAX_GAIN = 16.0  # limit for the resampler's queries and keys; with 200 its attention was one-hot
OWN_PATCH = 0.5  # target attention of latent i to patch i, within MAX_GAIN


@torch.no_grad()
def initialise(learner: Learner, seed: int) -> None:
    """Initialise all parameters, deterministically by `seed`."""
    torch.manual_seed(seed)
    for module in learner.modules():
        if isinstance(module, nn.Linear):
            module.weight.normal_(0, module.in_features**-0.5)
            if module.bias is not None:
                module.bias.zero_()
    _embed_tokens(learner)
    _calm_residuals(learner)
    _embed_patches(learner)
    _see_likeness(learner)
    _aim_latents(learner, seed)


def _embed_tokens(learner: Learner) -> None:
    """Give each token embedding about unit length."""
    table = learner.table
    width = table.words.shape[1]
    table.words.normal_(0, width**-0.5)
    table.columns.normal_(0, (2 * width) ** -0.5)
    table.rows.normal_(0, (2 * width) ** -0.5)
    table.cells.zero_()


def _calm_residuals(learner: Learner) -> None:
    """Scale the output of each residual block by 1/sqrt(blocks)."""
    towers = (
        (learner.model.vision_model.model.encoder.layers, ("self_attn.out_proj", "mlp.fc2")),
        (learner.model.text_model.model.layers, ("self_attn.out_proj", "ffn.fc2")),
    )
    for layers, names in towers:
        for layer in layers:
            for name in names:
                layer.get_submodule(name).weight /= math.sqrt(2 * len(layers))


def _embed_patches(learner: Learner) -> None:
    embeddings = learner.model.vision_model.model.embeddings
    weight = embeddings.patch_embedding.weight
    weight.normal_(0, weight[0].numel() ** -0.5)  # smooth filters did not train faster
    embeddings.class_embedding.normal_(0, 1)
    positions = embeddings.position_embedding.weight
    positions[0].zero_()
    positions[1:] = _sines(positions.shape[1])


def _see_likeness(learner: Learner) -> None:
    """Make keys equal to queries in the heads for twins, so that they attend to similar patches."""
    for _, layer in learner.twin_layers():
        attention = layer.self_attn
        attention.k_proj.weight[: attention.head_dim] = attention.q_proj.weight[
            : attention.head_dim
        ]


def _sines(width: int) -> Tensor:
    """Return 2-D sines and cosines of the 64 patches, row-major: [64, width], 4 divides width."""
    steps = torch.arange(PATCHES).float()
    frequencies = math.pi / PATCHES * 2 ** torch.linspace(0, 2.5, width // 4)
    angles = (steps[:, None] + 0.5) * frequencies
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # [8, width / 2]
    rows = waves[:, None].expand(-1, PATCHES, -1)
    columns = waves[None].expand(PATCHES, -1, -1)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1)


def _aim_latents(learner: Learner, seed: int) -> None:
    """Make latent i attend to patch i, by the effect of the patch's position on its features.

    Queries and keys share the gain. It is found by bisection, up to `MAX_GAIN`.
    """
    projection = learner.model.image_to_text_projection
    features = learner.encode(make_batch(seed, 0, 32, None).pixels).features
    mean = features.mean(0)[1:]
    code = mean - mean.mean(0)  # [64, vision width]
    attention = projection.x_attn
    keys, queries = attention.k_proj.weight.clone(), attention.q_proj.weight
    nn.init.orthogonal_(queries)
    # Attention multiplies by the transpose of the queries: they are orthogonal, so both cancel.
    aim = code @ projection.dense.weight.T @ keys.T @ queries
    projection.latent_query.copy_(nn.functional.normalize(aim, dim=-1))
    first = queries.clone()

    def own_share(gain: float) -> float:
        """Return the mean attention of latent i to patch i; key 0 is the class token."""
        attention.k_proj.weight.copy_(keys * gain)
        attention.q_proj.weight.copy_(first * gain)
        weights = projection(features)[1]  # [B, H, 64, 129]
        return float(weights[..., 1 : PATCHES**2 + 1].diagonal(dim1=-2, dim2=-1).mean())

    low, high = 1.0, MAX_GAIN
    if own_share(MAX_GAIN) < OWN_PATCH:
        return
    for _ in range(8):
        middle = (low + high) / 2
        low, high = (middle, high) if own_share(middle) < OWN_PATCH else (low, middle)
