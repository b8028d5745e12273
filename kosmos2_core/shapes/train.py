r"""Train the embedded checkpoint: `python -m kosmos2_core.shapes.train --out DIR [--resume]`.

One thread. The same command with --resume goes on after a kill. It reproduces the figures, not
the bits: sums in float32 depend on the processor.

How long it takes on one core of an AMD EPYC with AVX-512, in ms per image of 64 a step, with the
making of the scenes and the optimisers' steps, while the second core is idle, and as it was in the
run that made the embedded weights, at real-time priority beside work that kept the second one busy:

    vision   3400 x 64    7.3 ms   1590 s      7.6 ms   1650 s
    reading   150 x 64   14.3 ms    140 s     16.6 ms    160 s
    joint    2150 x 64   19.5 ms   2680 s     20.8 ms   2860 s
    checks on the way, evaluation    80 s                70 s
    in all                         4490 s              4740 s = 79 minutes

That is with glibc told to keep freed memory (else its page faults cost 10 to 25 % more):

    OMP_NUM_THREADS=1 MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=4294967296 \
        python -m kosmos2_core.shapes.train --out DIR
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers.utils.logging import disable_progress_bar

from kosmos2_core.shapes.evaluation.evaluate import brief_line, evaluate_checkpoint, figures_table
from kosmos2_core.shapes.training.learner import FULL
from kosmos2_core.shapes.training.loop import Run, train
from kosmos2_core.shapes.training.stages import Stage, plan
from kosmos2_core.shapes.training.state import STATE_FILE

STEPS = (3400, 150, 2150)  # vision, reading, joint; of 64 images
SAVE_EVERY = 240  # steps: two minutes of vision, four of joint training
CHECKED_SCENES = 32  # on the way
EVALUATED_SCENES = 1500


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train the embedded shapes checkpoint.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--resume", action="store_true", help="go on from the state in --out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--steps",
        type=int,
        nargs=3,
        default=STEPS,
        metavar=("VISION", "READING", "JOINT"),
        help=f"of each stage {STEPS}",
    )
    parser.add_argument("--evaluated-scenes", type=int, default=EVALUATED_SCENES)
    options = parser.parse_args(arguments)
    disable_progress_bar()
    if not options.resume and (options.out / STATE_FILE).exists():
        parser.error(f"{options.out} holds a run already: --resume it, or choose another folder")
    torch.set_num_threads(1)
    run = Run(
        directory=options.out,
        seed=options.seed,
        size=FULL,
        stages=plan(*options.steps),
        save_every=SAVE_EVERY,
    )

    def check(_: Stage) -> None:
        say(brief_line(evaluate_checkpoint(options.out, CHECKED_SCENES)))

    train(run, is_resumed=options.resume, report=say, check=check)
    say(figures_table(evaluate_checkpoint(options.out, options.evaluated_scenes)))


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
