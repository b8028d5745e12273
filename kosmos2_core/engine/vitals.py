"""How an engine does, for whoever watches it while it runs."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """The engine at one moment: `live` of the `slots` are taken, `waiting` prompts have none yet.

    `decode_steps` and the time that they took, `decode_s`, are those of the engine's whole life:
    one token for each live sequence, chosen and read, without images and prefills. What has no
    slots and no steps says 0.
    """

    slots: int = 0
    live: int = 0
    waiting: int = 0
    decode_steps: int = 0
    decode_s: float = 0.0


@dataclass(slots=True)
class StepClock:
    """Counts an engine's decode steps, over all its runs."""

    steps: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        self.steps += 1
        self.seconds += seconds
