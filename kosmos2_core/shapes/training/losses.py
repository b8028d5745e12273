"""Losses and the shares of right answers that progress lines show."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as binary
from torch.nn.functional import cross_entropy

from kosmos2_core.locations import CELLS, GRID
from kosmos2_core.shapes.tokens import shapes_ids
from kosmos2_core.shapes.training.batches import NO_LABEL, Batch, DenseTargets, Pack
from kosmos2_core.shapes.training.learner import HeadOutputs, Learner, word_logits

SIGMA = 0.65  # cells: labels of edges and corners are spread over their neighbours
LATENT_SHARE = 0.7  # of the loss of the heads on the latents
MASK_SHARE, COUNT_SHARE, RANK_SHARE, EDGES_SHARE = 0.5, 0.1, 0.5, 0.5
SHAPE_SHARE = 2.0  # what is learnt last

Figures = dict[str, Tensor]  # name -> scalar


def _spread() -> Tensor:
    """Row c: a Gaussian around cell c of 32, sum 1. [32, 32]"""
    cells = torch.arange(GRID).float()
    weights = torch.exp(-((cells[:, None] - cells) ** 2) / (2 * SIGMA**2))
    return weights / weights.sum(1, keepdim=True)


SPREAD = _spread()


def vision_loss(
    learner: Learner, batch: Batch, features: Tensor, mask: Tensor, latents: Tensor
) -> tuple[Tensor, Figures]:
    dense = batch.dense
    patch_loss, figures = _heads_loss(learner.patch_heads(features[:, 1:]), dense)
    latent_loss, latent_figures = _heads_loss(learner.latent_heads(latents), dense)
    count = cross_entropy(learner.count(features), dense.count)
    loss = patch_loss + LATENT_SHARE * latent_loss
    loss = loss + MASK_SHARE * binary(mask, dense.mask) + COUNT_SHARE * count
    return loss, figures | {f"latent_{name}": value for name, value in latent_figures.items()}


def _heads_loss(said: HeadOutputs, dense: DenseTargets) -> tuple[Tensor, Figures]:
    is_asked = ~dense.is_object.isnan()
    loss = binary(said.is_object[is_asked], dense.is_object[is_asked])
    colour, shape, rank, edges = (
        logits.flatten(0, 1)[dense.at]
        for logits in (said.colour, said.shape, said.rank, said.edges)
    )
    weight = dense.weight / dense.weight.sum()
    truth = dense.attributes
    soft = -(SPREAD[truth[:, 2:]] * edges.log_softmax(-1)).sum((1, 2))  # of the four edges
    parts = (
        (1.0, cross_entropy(colour, truth[:, 0], reduction="none")),
        (SHAPE_SHARE, cross_entropy(shape, truth[:, 1], reduction="none")),
        (RANK_SHARE, cross_entropy(rank, dense.rank, reduction="none")),
        (EDGES_SHARE, soft),
    )
    for share, part in parts:
        loss = loss + share * (weight * part).sum()
    near = (edges.argmax(-1) - truth[:, 2:]).abs() <= 1
    figures = {
        "object": ((said.is_object > 0) == (dense.is_object > 0))[is_asked].float().mean(),
        "colour": (weight * (colour.argmax(-1) == truth[:, 0])).sum(),
        "shape": (weight * (shape.argmax(-1) == truth[:, 1])).sum(),
        "rank": (weight * (rank.argmax(-1) == dense.rank)).sum(),
        "edge": (weight * near.float().mean(1)).sum(),
    }
    return loss, figures


def text_loss(learner: Learner, packs: Sequence[Pack], latents: Tensor) -> tuple[Tensor, Figures]:
    """Cross-entropy of the tokens to be said; locations against a Gaussian around them."""
    table = learner.table()
    parts = latents.split([len(pack.ids) for pack in packs])
    said = [
        learner.read(pack, part, table)[pack.labels != NO_LABEL]
        for pack, part in zip(packs, parts, strict=True)
    ]
    labels = torch.cat([pack.labels[pack.labels != NO_LABEL] for pack in packs])
    logprobs = word_logits(torch.cat(said), table).log_softmax(-1)
    cells = labels - shapes_ids().first_location
    is_cell = (cells >= 0) & (cells < CELLS)
    chosen = logprobs.argmax(-1)
    words = -logprobs[~is_cell].gather(-1, labels[~is_cell, None]).sum()
    corners, figures = _corners_loss(logprobs[is_cell], chosen[is_cell], cells[is_cell])
    figures["word"] = (chosen == labels)[~is_cell].float().mean()
    return (words + corners) / len(labels), figures


def _corners_loss(logprobs: Tensor, chosen: Tensor, cells: Tensor) -> tuple[Tensor, Figures]:
    """logprobs [N, vocabulary], chosen tokens [N], true cells [N]; the loss is a sum."""
    grid = logprobs[:, -CELLS:].unflatten(-1, (GRID, GRID))  # [N, y, x]
    loss = -torch.einsum("ny,nyx,nx->", SPREAD[cells // GRID], grid, SPREAD[cells % GRID])
    said = chosen - shapes_ids().first_location
    off = torch.maximum((said // GRID - cells // GRID).abs(), (said % GRID - cells % GRID).abs())
    return loss, {"corner": (off <= 1).float().mean(), "exact": (off == 0).float().mean()}
