"""Optimisers: Muon for the matrices of layers, AdamW for the rest."""

from collections.abc import Iterator

import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer

from kosmos2_core.shapes.training.learner import Learner
from kosmos2_core.shapes.training.stages import MUON_FACTOR, Stage, rate_factor

DECAY = 0.02  # for the matrices of layers
MAX_NORM = 3.0  # for the whole gradient
VISION_PARTS = ("model.vision_model.", "patch_heads.", "mask_head.", "kind_head.", "count_head.")
LAYERS = (".encoder.layers.", ".text_model.model.layers.")


def make_optimisers(learner: Learner) -> list[Optimizer]:
    """Make the two optimisers, each with the groups vision and text."""
    muon: tuple[list[nn.Parameter], ...] = ([], [])
    adam: tuple[list[nn.Parameter], ...] = ([], [])
    for name, parameter in _trained(learner):
        is_matrix = parameter.ndim == 2 and any(part in name for part in LAYERS)
        (muon if is_matrix else adam)[not name.startswith(VISION_PARTS)].append(parameter)
    return [
        Muon(
            [{"params": group} for group in muon],
            weight_decay=DECAY,
            adjust_lr_fn="match_rms_adamw",
        ),
        AdamW([{"params": group} for group in adam], weight_decay=0.0, betas=(0.9, 0.98)),
    ]


def _trained(learner: Learner) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield all parameters, without the embeddings that the location table replaces."""
    for name, parameter in learner.named_parameters():
        if not name.endswith(("embed_tokens.weight", "lm_head.weight")):
            yield name, parameter


def update(learner: Learner, optimisers: list[Optimizer], stage: Stage, step: int) -> None:
    """Take one step with the current gradients, and clear them."""
    parameters = [parameter for _, parameter in _trained(learner)]
    torch.nn.utils.clip_grad_norm_(parameters, MAX_NORM)
    factor = rate_factor(stage, step)
    for optimiser, gain in zip(optimisers, (MUON_FACTOR, 1.0), strict=True):
        for group, rate in zip(
            optimiser.param_groups, (stage.vision_rate, stage.text_rate), strict=True
        ):
            group["lr"] = factor * gain * rate
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
