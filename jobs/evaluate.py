"""`kosmos2 evaluate shapes`: how good the embedded checkpoint is, and what its scores are worth."""

import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from kosmos2_core.checkpoint.files import SHAPES_DIRECTORY
from kosmos2_core.shapes.evaluation import hard, samplers
from kosmos2_core.shapes.evaluation.evaluate import evaluate_checkpoint, figures, figures_table


def evaluate_shapes(*, model: Path | None, scenes: int, json_path: Path | None) -> None:
    disable_progress_bar()
    directory = model or SHAPES_DIRECTORY
    result, boxes = evaluate_checkpoint(directory, scenes), hard.scored_boxes(directory)
    by_sampling = list(samplers.outcomes(directory))
    pages = [figures_table(result), hard.table(boxes), "\n".join(map(samplers.line, by_sampling))]
    Console().print("\n\n".join(pages), highlight=False, soft_wrap=True)
    if json_path is not None:
        found = {
            "scenes": scenes,
            "figures": [asdict(figure) for figure in figures(result)],
            "hard": [asdict(row) for row in hard.discrimination(boxes)],
            "samplings": [asdict(outcome) for outcome in by_sampling],
        }
        json_path.write_text(json.dumps(found, indent=2))
