"""`kosmos2 evaluate shapes`: how good the embedded checkpoint is, and what its scores are worth."""

import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from kosmos2_core.checkpoint_files import SHAPES_DIRECTORY
from kosmos2_core.shapes import hard
from kosmos2_core.shapes.evaluate import evaluate, figures, table


def evaluate_shapes(*, model: Path | None, scenes: int, json_path: Path | None) -> None:
    disable_progress_bar()
    directory = model or SHAPES_DIRECTORY
    result, boxes = evaluate(directory, scenes), hard.scored_boxes(directory)
    for text in (table(result), "", hard.table(boxes)):
        Console().print(text, highlight=False, soft_wrap=True)
    if json_path is not None:
        found = {
            "scenes": scenes,
            "figures": [asdict(figure) for figure in figures(result)],
            "hard": [asdict(row) for row in hard.discrimination(boxes)],
        }
        json_path.write_text(json.dumps(found, indent=2))
