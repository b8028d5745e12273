"""The state of training, in memory and on disk: enough to resume without any difference.

Scenes are numbered through all stages, so the data depend on the counters only.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from kosmos2_core.shapes.training.learner import Learner, Size
from kosmos2_core.shapes.training.optimisers import make_optimisers

STATE_FILE = "training_state.pt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """The progress: `step` steps of stage `stage` are done, with `scenes` scenes in all."""

    stage: int = 0
    step: int = 0
    scenes: int = 0


class TrainingState:
    """Learner, optimisers and position. A saved state must have the same `settings`."""

    def __init__(self, size: Size, settings: str) -> None:
        self.learner = Learner(size)
        self.optimisers = make_optimisers(self.learner)
        self.position = Position()
        self._settings = settings

    def save(self, directory: Path) -> None:
        """Save the state atomically: a kill leaves the old state or the new one."""
        position = self.position
        partial = directory / f".{STATE_FILE}.partial"
        torch.save(
            {
                "learner": self.learner.state_dict(),
                "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
                "position": (position.stage, position.step, position.scenes),
                "random": torch.get_rng_state(),
                "settings": self._settings,
            },
            partial,
        )
        os.replace(partial, directory / STATE_FILE)

    def load(self, directory: Path) -> None:
        """Load a saved state. Raises ValueError if it was saved with other settings."""
        saved = torch.load(directory / STATE_FILE, weights_only=True)
        if saved["settings"] != self._settings:
            raise ValueError(
                f"{directory} was begun with other settings ({saved['settings']}): use the same "
                "options, or another folder"
            )
        self.learner.load_state_dict(saved["learner"])
        for optimiser, of_it in zip(self.optimisers, saved["optimisers"], strict=True):
            optimiser.load_state_dict(of_it)
        torch.set_rng_state(saved["random"])
        stage, step, scenes = saved["position"]
        self.position = Position(stage=stage, step=step, scenes=scenes)
