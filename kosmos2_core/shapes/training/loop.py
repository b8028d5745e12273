"""The training loop, with progress lines, saved states and checkpoints."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from kosmos2_core.shapes.training.batches import Batch, make_batch
from kosmos2_core.shapes.training.initialisation import initialise
from kosmos2_core.shapes.training.learner import Learner, Size
from kosmos2_core.shapes.training.losses import TrainingFigures, text_loss, vision_loss
from kosmos2_core.shapes.training.optimisers import update
from kosmos2_core.shapes.training.saving import save_checkpoint
from kosmos2_core.shapes.training.stages import Stage
from kosmos2_core.shapes.training.state import STATE_FILE, Position, TrainingState


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """The settings of a training run. It saves state and checkpoint every `save_every` steps."""

    directory: Path
    seed: int
    size: Size
    stages: tuple[Stage, ...]
    save_every: int
    report_every: int = 25

    @property
    def settings(self) -> str:
        return repr((self.seed, self.size, self.stages))


def train(
    run: TrainingRun,
    *,
    is_resumed: bool,
    report: Callable[[str], None],
    check: Callable[[Stage], None],
) -> Learner:
    """Train through all stages, and return the learner.

    `check` is called with the stage after each checkpoint of a stage that trains text.
    """
    torch.set_flush_denormal(True)
    run.directory.mkdir(parents=True, exist_ok=True)
    state = TrainingState(run.size, run.settings)
    if is_resumed and (run.directory / STATE_FILE).exists():
        state.load(run.directory)
        report(f"resumed: {state.position}")
    else:
        initialise(state.learner, run.seed)
    while state.position.stage < len(run.stages):
        stage = run.stages[state.position.stage]
        _train_to_save(run, stage, state, report)
        state.save(run.directory)
        save_checkpoint(run.directory, state.learner)
        if stage.others is not None:
            check(stage)
    return state.learner


def _train_to_save(
    run: TrainingRun, stage: Stage, state: TrainingState, report: Callable[[str], None]
) -> None:
    """Train up to the next save or the end of the stage."""
    position = state.position
    stop = min(stage.steps, (position.step // run.save_every + 1) * run.save_every)
    scenes, meter = position.scenes, _Meter()
    for step in range(position.step, stop):
        batch = make_batch(run.seed, scenes, stage.batch_size, stage.others, stage.drills)
        meter.add(_step(state, stage, step, batch), stage.batch_size)
        scenes += stage.batch_size
        if (step + 1) % run.report_every == 0 or step + 1 == stop:
            report(f"{stage.name} {step + 1}/{stage.steps} {scenes} scenes {meter.line()}")
            meter = _Meter()
    is_done = stop == stage.steps
    state.position = Position(
        stage=position.stage + is_done, step=0 if is_done else stop, scenes=scenes
    )


def _step(state: TrainingState, stage: Stage, step: int, batch: Batch) -> TrainingFigures:
    learner, is_frozen = state.learner, stage.vision_rate == 0
    with torch.autocast("cpu", torch.bfloat16):
        with torch.set_grad_enabled(not is_frozen):
            seen = learner.encode(batch.pixels)
        latents = learner.latents(seen.features)
        loss, figures = vision_loss(learner, batch, seen, latents)
        loss = loss * stage.heads_share
        if batch.packs:
            said, more = text_loss(learner, batch.packs, latents)
            loss, figures = loss + said, figures | more | {"text": said}
    loss.backward()
    if is_frozen:
        for optimiser in state.optimisers:  # the vision tower is frozen
            for parameter in optimiser.param_groups[0]["params"]:
                parameter.grad = None
    update(learner, state.optimisers, stage, step)
    return {"loss": loss.detach()} | {name: value.detach() for name, value in figures.items()}


class _Meter:
    """The means of the figures since its creation, and the time per image."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._images = self._steps = 0
        self._sums: dict[str, float] = {}

    def add(self, figures: TrainingFigures, images: int) -> None:
        self._images += images
        self._steps += 1
        for name, value in figures.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value)

    def line(self) -> str:
        each = (time.perf_counter() - self._start) / self._images * 1000
        means = " ".join(f"{name} {total / self._steps:.3f}" for name, total in self._sums.items())
        return f"{each:.1f} ms/image {means}"
