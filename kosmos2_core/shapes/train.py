"""Train the embedded checkpoint: `python -m kosmos2_core.shapes.train --out DIR [--resume]`.

Training uses one thread. The same command with --resume resumes after a kill. A run reproduces the
figures but not the bits, because float32 sums depend on the processor. See
`shapes/checkpoint/README.md` for memory settings that save time, and for the duration.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from transformers.utils.logging import disable_progress_bar

from kosmos2_core.shapes.evaluation.evaluate import brief_line, evaluate_checkpoint, figures_table
from kosmos2_core.shapes.training.learner import FULL
from kosmos2_core.shapes.training.loop import TrainingRun, train
from kosmos2_core.shapes.training.stages import Stage, make_stages
from kosmos2_core.shapes.training.state import STATE_FILE

STEPS = (3400, 150, 2150)  # vision, reading, joint; of 64 images
SAVE_EVERY = 240  # steps: two minutes of vision, four of joint training
CHECKED_SCENES = 32  # at each checkpoint
EVALUATED_SCENES = 1500


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train the embedded shapes checkpoint.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--resume", action="store_true", help="resume from the state in --out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--steps",
        type=int,
        nargs=3,
        default=STEPS,
        metavar=("VISION", "READING", "JOINT"),
        help=f"number of steps of each stage (default: {STEPS})",
    )
    parser.add_argument("--evaluated-scenes", type=int, default=EVALUATED_SCENES)
    options = parser.parse_args(arguments)
    disable_progress_bar()
    if not options.resume and (options.out / STATE_FILE).exists():
        parser.error(f"{options.out} contains a run: use --resume, or choose another folder")
    torch.set_num_threads(1)
    run = TrainingRun(
        directory=options.out,
        seed=options.seed,
        size=FULL,
        stages=make_stages(*options.steps),
        save_every=SAVE_EVERY,
    )

    say = partial(print, flush=True)

    def check(_: Stage) -> None:
        say(brief_line(evaluate_checkpoint(options.out, CHECKED_SCENES)))

    train(run, is_resumed=options.resume, report=say, check=check)
    say(figures_table(evaluate_checkpoint(options.out, options.evaluated_scenes)))


if __name__ == "__main__":
    main()
