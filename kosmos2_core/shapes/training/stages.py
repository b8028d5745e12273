"""The stages of training, with their steps and learning rates."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stage of training. Learning rates are those of AdamW; Muon's are higher by `MUON_FACTOR`.

    others: exercises per image besides its captions; None for no text. drills: rounds of the
    exercises that are learnt last. vision_rate: 0 freezes the vision tower. end_share: share of the
    rates at the end of a cosine. heads_share: weight of the dense losses beside that of the text.
    """

    name: str
    steps: int
    batch_size: int
    others: int | None
    vision_rate: float
    text_rate: float
    warm_up: int
    end_share: float
    drills: int = 0
    heads_share: float = 1.0


MUON_FACTOR = 2.0


def rate_factor(stage: Stage, step: int) -> float:
    """Return the factor of the stage's rates at its step `step`, counted from 0."""
    if step < stage.warm_up:
        return (step + 1) / stage.warm_up
    done = (step - stage.warm_up) / max(1, stage.steps - stage.warm_up)
    return stage.end_share + (1 - stage.end_share) * (1 + math.cos(math.pi * done)) / 2


def make_stages(vision: int, reading: int, joint: int, batch_size: int = 64) -> tuple[Stage, ...]:
    """Make the three stages: the vision tower, then the decoder, then both together."""
    return (
        Stage(
            name="vision",
            steps=vision,
            batch_size=batch_size,
            others=None,
            vision_rate=1.5e-3,
            text_rate=1.5e-3,
            warm_up=min(60, vision // 4),
            end_share=0.03,
        ),
        Stage(
            name="reading",
            steps=reading,
            batch_size=batch_size,
            others=3,
            drills=1,
            vision_rate=0.0,
            text_rate=1.5e-3,
            warm_up=min(40, reading // 4),
            end_share=0.7,
            heads_share=0.2,
        ),
        Stage(
            name="joint",
            steps=joint,
            batch_size=batch_size,
            others=3,
            drills=1,
            vision_rate=3e-4,
            text_rate=1e-3,
            warm_up=min(40, joint // 4),
            end_share=0.01,
            heads_share=0.4,
        ),
    )
