"""Where training stands, on disk: enough to go on as if nothing had happened.

Scenes are numbered through all stages, so the counters are all that the data depend on.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.optim import Optimizer

from kosmos2_core.shapes.training.learner import Learner

STATE_FILE = "training_state.pt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """`step` steps of the stage number `stage` are done, and `scenes` scenes used in all."""

    stage: int = 0
    step: int = 0
    scenes: int = 0


def save_state(
    directory: Path,
    learner: Learner,
    optimisers: list[Optimizer],
    position: Position,
    settings: str,
) -> None:
    """Atomic: a kill at any time leaves the old state or the new one. `settings`: see `load`."""
    partial = directory / f".{STATE_FILE}.partial"
    torch.save(
        {
            "learner": learner.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in optimisers],
            "position": (position.stage, position.step, position.scenes),
            "random": torch.get_rng_state(),
            "settings": settings,
        },
        partial,
    )
    os.replace(partial, directory / STATE_FILE)


def load_state(
    directory: Path, learner: Learner, optimisers: list[Optimizer], settings: str
) -> Position:
    """Raises ValueError where the state was saved under other settings (seed, stages, size)."""
    state = torch.load(directory / STATE_FILE, weights_only=True)
    if state["settings"] != settings:
        raise ValueError(f"{directory} was begun with other settings: {state['settings']}")
    learner.load_state_dict(state["learner"])
    for optimiser, saved in zip(optimisers, state["optimisers"], strict=True):
        optimiser.load_state_dict(saved)
    torch.set_rng_state(state["random"])
    stage, step, scenes = state["position"]
    return Position(stage=stage, step=step, scenes=scenes)
