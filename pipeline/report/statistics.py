"""Statistics of a dataset as data: the figures of the run report without its page."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from kosmos2_core.grounding.grid import GRID
from pipeline.dataset.dataset import StoredDataset
from pipeline.dataset.ledger import Ledger, Totals
from pipeline.progress import ObserveShards
from pipeline.report.figures import Boxes, DatasetFigures
from pipeline.report.scan import scan
from pipeline.report.shares import Counts, Shares, quantiles

PHRASES = 20
QUANTILE_LEVELS = {"p5": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}

Quantiles = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFigures:
    annotations: int
    clean: int  # without any flag
    entities: int
    boxes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Statistics of a dataset.

    `annotated` and `rejected` count one for each task of an image; `reject_reasons` are
    `<stage>/<error type>`. `quantiles` are given for existing values of: entities, boxes and words
    per annotation (up to 20, 20 and 120), box sides as shares of the image's, scores, consistencies
    and phrase probabilities. `phrases` are the most frequent; their counts are too low by at most
    `phrases_missed`.
    """

    output: str
    model: str
    fingerprint: str
    shards_planned: int
    shards_committed: int
    shards_failed: int
    images: int
    annotated: int
    rejected: int
    reject_reasons: dict[str, int]
    clean: int
    entities: int
    boxes: int
    boxes_of_prompts: int
    without_box: int
    tasks: dict[str, TaskFigures]
    quantiles: dict[str, Quantiles]
    issues: dict[str, int]
    phrases: dict[str, int]
    phrases_missed: int


def statistics(
    dataset: StoredDataset, observe: ObserveShards = lambda done, of: None
) -> Statistics:
    """Read all commits once. Raises PipelineError if one cannot be read."""
    ledger = Ledger(dataset.store)
    committed = ledger.committed()
    found = scan(dataset.store, sorted(committed), observe)
    figures, boxes, totals = found.figures, found.figures.all_boxes(), Totals.of(found.commits)
    reasons = {
        f"{reason.stage}/{reason.error_type}": n for reason, n in found.reasons.counts.items()
    }
    return Statistics(
        output=dataset.store.uri,
        model=dataset.record.model.id,
        fingerprint=dataset.record.fingerprint,
        shards_planned=len(dataset.plan.shards),
        shards_committed=totals.shards,
        shards_failed=len(ledger.failed(committed)),
        images=totals.samples,
        annotated=totals.annotated,
        rejected=totals.rejected,
        reject_reasons=_most_first(reasons),
        clean=sum(figures.flags.clean.values()),
        entities=boxes.phrases,
        boxes=boxes.boxes,
        boxes_of_prompts=boxes.scores.missing,
        without_box=int(boxes.per_image[0]),
        tasks={task: _of_task(figures, task) for task in sorted(figures.by_task)},
        quantiles=dict(_quantiles(figures, boxes)),
        issues=_most_first(figures.flags.counts),
        phrases=dict(figures.words.phrases.top(PHRASES)),
        phrases_missed=figures.words.phrases.missed,
    )


def _of_task(figures: DatasetFigures, task: str) -> TaskFigures:
    return TaskFigures(
        annotations=figures.by_task[task],
        clean=figures.flags.clean[task],
        entities=figures.boxes[task].phrases,
        boxes=figures.boxes[task].boxes,
    )


def _quantiles(figures: DatasetFigures, boxes: Boxes) -> Iterator[tuple[str, Quantiles]]:
    levels = tuple(QUANTILE_LEVELS.values())
    counted: dict[str, Counts] = {
        "entities per annotation": boxes.phrases_per_image,
        "boxes per annotation": boxes.per_image,
        "words per caption": figures.words.lengths,
    }
    shares: dict[str, Shares] = {
        "box score": boxes.scores,
        "box consistency": boxes.consistencies,
        "phrase probability": boxes.probabilities,
        "box side": _sides(boxes),
    }
    found = [
        *((name, quantiles(counts, levels)) for name, counts in counted.items()),
        *((name, numbers.quantiles(levels)) for name, numbers in shares.items()),
    ]
    for name, values in found:
        if values is not None:
            yield name, dict(zip(QUANTILE_LEVELS, values, strict=True))


def _sides(boxes: Boxes) -> Shares:
    """Return the geometric mean of each box's width and height, as a share of the grid."""
    cells = np.arange(1, GRID + 1)
    sides = np.sqrt(np.outer(cells, cells)) / GRID
    found = Shares()
    found.add_counted(sides.ravel(), boxes.sizes.ravel())
    return found


def _most_first(counts: dict[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
