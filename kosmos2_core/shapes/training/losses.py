"""Losses, and the shares of correct answers in progress lines."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as binary
from torch.nn.functional import cross_entropy

from kosmos2_core.grounding.grid import CELLS, GRID
from kosmos2_core.shapes.training.batches import NO_LABEL, Batch, DenseTargets, Pack
from kosmos2_core.shapes.training.learner import HeadOutputs, Learner, VisionOutputs, word_logits
from kosmos2_core.shapes.training.samples import ATTRIBUTES
from kosmos2_core.shapes.world.tokens import shapes_ids

SIGMA = 0.65  # cells: labels of edges and corners are spread over neighbouring cells
LATENT_SHARE = 0.7  # weight of the loss of the heads on the latents
MASK_SHARE, COUNT_SHARE, EDGES_SHARE, KIND_SHARE, TWIN_SHARE = 0.5, 0.1, 0.5, 0.5, 0.3
ATTRIBUTE_SHARES = {  # weights; shapes and twins are learnt last
    "colour": 1.0,
    "shape": 3.0,
    "rank": 0.5,
    "entity": 0.5,
    "member": 1.0,
    "count": 0.2,
}

TrainingFigures = dict[str, Tensor]  # name -> scalar


def _spread() -> Tensor:
    """Return [32, 32]: row c is a Gaussian around cell c with sum 1."""
    cells = torch.arange(GRID).float()
    weights = torch.exp(-((cells[:, None] - cells) ** 2) / (2 * SIGMA**2))
    return weights / weights.sum(1, keepdim=True)


SPREAD = _spread()


def vision_loss(
    learner: Learner, batch: Batch, seen: VisionOutputs, latents: Tensor
) -> tuple[Tensor, TrainingFigures]:
    """Return the loss of all heads on patches and latents, and their figures."""
    dense = batch.dense
    patch_loss, figures = _heads_loss(learner.patch_heads(seen.features[:, 1:]), dense)
    latent_loss, latent_figures = _heads_loss(learner.latent_heads(latents), dense)
    loss = patch_loss + LATENT_SHARE * latent_loss
    loss = loss + MASK_SHARE * binary(seen.mask, dense.mask)
    loss = loss + COUNT_SHARE * cross_entropy(learner.count(seen.features), dense.count)
    loss = loss + KIND_SHARE * _kind_loss(seen.kind, dense)
    twin_loss, twin = _twin_loss(seen.twins, dense)
    figures |= {f"latent_{name}": value for name, value in latent_figures.items()}
    return loss + TWIN_SHARE * twin_loss, figures | {"twin": twin}


def _shares(dense: DenseTargets) -> Tensor:
    return dense.weight / dense.weight.sum()


def _heads_loss(said: HeadOutputs, dense: DenseTargets) -> tuple[Tensor, TrainingFigures]:
    is_asked = ~dense.is_object.isnan()
    loss = binary(said.is_object[is_asked], dense.is_object[is_asked])
    weight = _shares(dense)
    edges = said.edges.flatten(0, 1)[dense.at]
    soft = -(SPREAD[dense.edges] * edges.log_softmax(-1)).sum((1, 2))  # of the four edges
    loss = loss + EDGES_SHARE * (weight * soft).sum()
    is_object = ((said.is_object > 0) == (dense.is_object > 0))[is_asked]
    near = (edges.argmax(-1) - dense.edges).abs() <= 1
    figures = {"object": is_object.float().mean(), "edge": (weight * near.float().mean(1)).sum()}
    for name, share in ATTRIBUTE_SHARES.items():
        logits, truth = said.attributes[name].flatten(0, 1)[dense.at], dense.attributes[name]
        loss = loss + share * (weight * cross_entropy(logits, truth, reduction="none")).sum()
        figures[name] = (weight * (logits.argmax(-1) == truth)).sum()
    return loss, figures


def _kind_loss(kind: Tensor, dense: DenseTargets) -> Tensor:
    """Return the loss of colour and shape in a middle layer, so that later layers can compare."""
    names = ("colour", "shape")
    parts = kind.flatten(0, 1)[dense.at].split([ATTRIBUTES[name] for name in names], dim=-1)
    losses = (
        ATTRIBUTE_SHARES[name] * cross_entropy(part, dense.attributes[name], reduction="none")
        for name, part in zip(names, parts, strict=True)
    )
    return (_shares(dense) * sum(losses)).sum()


def _twin_loss(twins: Sequence[Tensor], dense: DenseTargets) -> tuple[Tensor, Tensor]:
    """Return the loss of the attention to twins, and its correct share in the last layer."""
    weight = _shares(dense)
    logs = [attention.flatten(0, 1)[dense.at] for attention in twins]
    losses = torch.stack([-(weight * (dense.twins * log).sum(-1)).sum() for log in logs])
    has_twin = (dense.twins[:, 0] == 0) & (dense.twins.sum(-1) > 0)
    right = (logs[-1].exp() * (dense.twins > 0)).sum(-1)[has_twin]
    return losses.mean(), right.mean() if len(right) else torch.tensor(1.0)


def text_loss(
    learner: Learner, packs: Sequence[Pack], latents: Tensor
) -> tuple[Tensor, TrainingFigures]:
    """Return the cross-entropy of the labels; locations against a Gaussian around them."""
    table = learner.table()
    parts = latents.split([len(pack.ids) for pack in packs])
    said = [
        learner.decode(pack, part, table)[pack.labels != NO_LABEL]
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


def _corners_loss(
    logprobs: Tensor, chosen: Tensor, cells: Tensor
) -> tuple[Tensor, TrainingFigures]:
    """Return the summed loss of logprobs [N, vocabulary], and figures of chosen tokens [N]."""
    grid = logprobs[:, -CELLS:].unflatten(-1, (GRID, GRID))  # [N, y, x]
    loss = -torch.einsum("ny,nyx,nx->", SPREAD[cells // GRID], grid, SPREAD[cells % GRID])
    said = chosen - shapes_ids().first_location
    off = torch.maximum((said // GRID - cells // GRID).abs(), (said % GRID - cells % GRID).abs())
    return loss, {"corner": (off <= 1).float().mean(), "exact": (off == 0).float().mean()}
