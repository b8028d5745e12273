"""Counts of a dataset's rows for a report, added up over batches and shards.

Each class accepts a batch of rows by `add` and the counts of other rows by `merge`. Its size does
not depend on the number of rows.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from heapq import nsmallest

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from kosmos2_core.grounding.grid import CELLS, GRID
from pipeline.report.frequent import Frequent
from pipeline.report.shares import Counts, Shares

FIGURE_COLUMNS = ("index", "task", "caption", "prompt_chars", "entities", "issues")
SCORE_BINS = 20
MOST_BOXES = 20  # per image; higher numbers are counted here
MOST_WORDS = 120  # per caption; higher numbers are counted here
EXAMPLES_PER_FLAG = 6  # rows per flag


def _zeros(*shape: int) -> Counts:
    return np.zeros(shape, np.int64)


@dataclass(slots=True, kw_only=True)
class Boxes:
    """Counts of boxes and phrases.

    `sizes` counts boxes by the rows and columns of the grid that they span, minus one. Boxes from
    the prompt have no score; boxes that were not verified have no consistency. `probabilities` are
    those of the phrases.
    """

    boxes: int = 0
    phrases: int = 0
    scores: Shares = field(default_factory=Shares)
    consistencies: Shares = field(default_factory=Shares)
    probabilities: Shares = field(default_factory=Shares)
    per_image: Counts = field(default_factory=lambda: _zeros(MOST_BOXES + 1))
    phrases_per_image: Counts = field(default_factory=lambda: _zeros(MOST_BOXES + 1))
    sizes: Counts = field(default_factory=lambda: _zeros(GRID, GRID))
    _edges: Counts = field(default_factory=lambda: _zeros(GRID + 1, GRID + 1))

    def add(self, entities: pa.Array) -> None:
        """Count the boxes of the column `entities`."""
        rows_of_phrases = pc.list_parent_indices(entities).to_numpy()
        said = pc.list_flatten(entities)
        found = pc.struct_field(said, "boxes")
        counts = pc.list_value_length(found).to_numpy()
        boxes = pc.list_flatten(found)
        self.phrases += len(found)
        self.boxes += len(boxes)
        per_image = np.bincount(rows_of_phrases, weights=counts, minlength=len(entities))
        self.per_image += _histogram(per_image, MOST_BOXES)
        phrases_per_image = pc.list_value_length(entities).to_numpy()
        self.phrases_per_image += _histogram(phrases_per_image, MOST_BOXES)
        self.scores.add(pc.struct_field(boxes, "score"))
        self.consistencies.add(pc.struct_field(boxes, "consistency"))
        self.probabilities.add(pc.exp(pc.struct_field(said, "phrase_logprob")))
        self._add_places(*(_cells(boxes, corner) for corner in ("ul", "lr")))

    def merge(self, other: "Boxes") -> None:
        self.boxes += other.boxes
        self.phrases += other.phrases
        self.scores.merge(other.scores)
        self.consistencies.merge(other.consistencies)
        self.probabilities.merge(other.probabilities)
        self.per_image += other.per_image
        self.phrases_per_image += other.phrases_per_image
        self.sizes += other.sizes
        self._edges += other._edges

    @property
    def coverage(self) -> Counts:
        """Counts [32, 32] of the boxes that cover each cell of the grid."""
        return self._edges.cumsum(axis=0).cumsum(axis=1)[:GRID, :GRID]

    def _add_places(self, ul: Counts, lr: Counts) -> None:
        left, top, right, bottom = ul % GRID, ul // GRID, lr % GRID, lr // GRID
        # Mark the corners of each rectangle; summing twice makes areas of them.
        for row, column, sign in (
            *((top, left, 1), (top, right + 1, -1)),
            *((bottom + 1, left, -1), (bottom + 1, right + 1, 1)),
        ):
            np.add.at(self._edges, (row, column), sign)
        np.add.at(self.sizes, (np.abs(bottom - top), np.abs(right - left)), 1)


def _cells(boxes: pa.Array, corner: str) -> Counts:
    cells: Counts = pc.struct_field(boxes, corner).to_numpy().astype(np.int64)
    return np.clip(cells, 0, CELLS - 1)


def _histogram(values: npt.ArrayLike, most: int) -> Counts:
    """Count the values that are 0, 1, ..., and `most` or more."""
    whole = np.minimum(np.asarray(values).astype(np.int64), most)
    return np.bincount(whole, minlength=most + 1).astype(np.int64)


@dataclass(slots=True, kw_only=True)
class Words:
    """Words of the answers, without the prompt's words. Phrases are counted in lower case."""

    lengths: Counts = field(default_factory=lambda: _zeros(MOST_WORDS + 1))
    phrases: Frequent = field(default_factory=Frequent)

    def add(self, captions: pa.Array, prompt_chars: pa.Array, entities: pa.Array) -> None:
        pairs = zip(captions.to_pylist(), prompt_chars.to_pylist(), strict=True)
        lengths = [len(caption[start:].split()) for caption, start in pairs]
        self.lengths += _histogram(lengths, MOST_WORDS)
        phrases = pc.struct_field(pc.list_flatten(entities), "phrase")
        self.phrases.add(" ".join(phrase.lower().split()) for phrase in phrases.to_pylist())

    def merge(self, other: "Words") -> None:
        self.lengths += other.lengths
        self.phrases.merge(other.phrases)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class FlaggedRow:
    """A row with a flag. `draw` is random in [0, 1), the same at every reading of the dataset."""

    draw: float
    shard_id: str
    index: int
    task: str


@dataclass(slots=True, kw_only=True)
class Flags:
    """Counts of flags. `examples` are a few rows of each flag, a uniform sample of all of them."""

    clean: Counter[str] = field(default_factory=Counter)  # rows without any flag, by task
    counts: Counter[str] = field(default_factory=Counter)
    examples: defaultdict[str, list[FlaggedRow]] = field(default_factory=lambda: defaultdict(list))

    def add(self, rows: pa.RecordBatch, shard_id: str, draws: npt.NDArray[np.float64]) -> None:
        issues, tasks = rows["issues"], rows["task"].to_pylist()
        indices = rows["index"].to_pylist()
        has_any = pc.list_value_length(issues).to_numpy() > 0
        self.clean.update(tasks[i] for i in np.flatnonzero(~has_any))
        found = defaultdict(list)
        pairs = zip(
            pc.list_flatten(issues).to_pylist(),
            pc.list_parent_indices(issues).to_pylist(),
            strict=True,
        )
        for flag, i in pairs:
            row = FlaggedRow(draw=draws[i], shard_id=shard_id, index=indices[i], task=tasks[i])
            found[flag].append(row)
        for flag, some in found.items():
            self.counts[flag] += len(some)
            self._keep(flag, some)

    def merge(self, other: "Flags") -> None:
        self.clean.update(other.clean)
        self.counts.update(other.counts)
        for flag, some in other.examples.items():
            self._keep(flag, some)

    def _keep(self, flag: str, some: list[FlaggedRow]) -> None:
        self.examples[flag] = nsmallest(EXAMPLES_PER_FLAG, [*self.examples[flag], *some])


@dataclass(slots=True, kw_only=True)
class DatasetFigures:
    """All counts of annotated rows; `by_task` counts the rows."""

    by_task: Counter[str] = field(default_factory=Counter)
    boxes: dict[str, Boxes] = field(default_factory=dict)  # by task
    words: Words = field(default_factory=Words)
    flags: Flags = field(default_factory=Flags)

    def add(self, rows: pa.RecordBatch, shard_id: str, draws: npt.NDArray[np.float64]) -> None:
        """Count rows; `draws` has one number in [0, 1) for each row."""
        for task, of_task in _by_task(rows):
            self.by_task[task] += of_task.num_rows
            self.boxes.setdefault(task, Boxes()).add(of_task["entities"])
        self.words.add(rows["caption"], rows["prompt_chars"], rows["entities"])
        self.flags.add(rows, shard_id, draws)

    def merge(self, other: "DatasetFigures") -> None:
        self.by_task.update(other.by_task)
        for task, boxes in other.boxes.items():
            self.boxes.setdefault(task, Boxes()).merge(boxes)
        self.words.merge(other.words)
        self.flags.merge(other.flags)

    def all_boxes(self) -> Boxes:
        together = Boxes()
        for boxes in self.boxes.values():
            together.merge(boxes)
        return together

    def wanted(self) -> Mapping[str, set[tuple[int, str]]]:
        """Return the examples by shard id, for the contact sheet."""
        rows: defaultdict[str, set[tuple[int, str]]] = defaultdict(set)
        for some in self.flags.examples.values():
            for row in some:
                rows[row.shard_id].add((row.index, row.task))
        return rows


def _by_task(rows: pa.RecordBatch) -> list[tuple[str, pa.RecordBatch]]:
    tasks = pc.unique(rows["task"]).to_pylist()
    if len(tasks) == 1:
        return [(tasks[0], rows)]
    return [(task, rows.filter(pc.equal(rows["task"], task))) for task in tasks]


def draws_of(shard_id: str) -> np.random.Generator:
    """Return a generator of random numbers per shard, so that shards can be read in any order."""
    return np.random.default_rng(int(hashlib.sha256(shard_id.encode()).hexdigest()[:16], 16))
