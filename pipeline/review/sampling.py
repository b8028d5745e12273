"""The choice of boxes to judge: at random within strata, each with the probability of its choice.

One scan keeps, of each stratum, the boxes with the smallest random numbers. Memory holds at most
`count` boxes per stratum.
"""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from heapq import nsmallest

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.concurrency import in_order
from pipeline.dataset.commit import open_commit
from pipeline.progress import ObserveShards
from pipeline.review.judgements import BoxPlace
from pipeline.review.options import SampleBy
from pipeline.storage import OutputStore

_ROWS = 2048  # rows per batch
_READERS = 4
_SHARDS_AHEAD = 8
_BINS = 10
_COLUMNS = ["index", "task", "entities", "issues"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenBox:
    """A box to judge. `probability` is that of its choice, in (0, 1]."""

    place: BoxPlace
    score: float
    probability: float


# A box of a stratum: its random number, place and score.
_Drawn = tuple[float, tuple[str, int, str, int, int], float]


@dataclass(slots=True)
class _Strata:
    """The number of boxes by stratum, and those with the smallest random numbers."""

    count: int
    sizes: Counter[str]
    drawn: dict[str, list[_Drawn]]

    def add(self, stratum: str, size: int, drawn: list[_Drawn]) -> None:
        self.sizes[stratum] += size
        self.drawn[stratum] = nsmallest(self.count, [*self.drawn[stratum], *drawn])


def choose_boxes(
    store: OutputStore,
    shard_ids: list[str],
    *,
    by: SampleBy,
    count: int,
    seed: int,
    observe: ObserveShards = lambda done, of: None,
) -> list[ChosenBox]:
    """Choose `count` boxes of the model, or all if there are fewer.

    Boxes without a score, which were given in the prompt, are left out. The same seed chooses the
    same boxes. Raises PipelineError if a commit cannot be read.
    """
    strata = _Strata(count, Counter(), defaultdict(list))
    calls = (partial(_of_shard, store, i, by, count, seed) for i in shard_ids)
    with ThreadPoolExecutor(_READERS, thread_name_prefix="sample") as pool:
        for done, found in enumerate(in_order(pool, calls, ahead=_SHARDS_AHEAD), start=1):
            for stratum, size in found.sizes.items():
                strata.add(stratum, size, found.drawn[stratum])
            observe(done, len(shard_ids))
    shares = allocate(count, strata.sizes, _weights(by, strata.sizes))
    return [
        ChosenBox(
            place=BoxPlace(shard_id=shard_id, index=index, task=task, entity=entity, box=box),
            score=score,
            probability=shares[stratum] / strata.sizes[stratum],
        )
        for stratum in sorted(shares)
        for _, (shard_id, index, task, entity, box), score in strata.drawn[stratum][
            : shares[stratum]
        ]
    ]


def allocate(count: int, sizes: Mapping[str, int], weights: Mapping[str, float]) -> dict[str, int]:
    """Divide `count` boxes among strata by weight; none gets more than it has, each at least one.

    >>> allocate(10, {"few": 2, "many": 100}, {"few": 1.0, "many": 1.0})
    {'few': 2, 'many': 8}
    """
    shares = {stratum: min(size, 1) for stratum, size in sorted(sizes.items())}
    for _ in range(min(count, sum(sizes.values())) - sum(shares.values())):
        open_ones = [stratum for stratum in shares if shares[stratum] < sizes[stratum]]
        shares[max(open_ones, key=lambda s: weights[s] / shares[s])] += 1
    return shares


def _weights(by: SampleBy, sizes: Mapping[str, int]) -> dict[str, float]:
    """Return the weight of each stratum.

    For `uncertain` it is the size times the standard deviation of right and wrong, if the score
    were the share of right boxes (Neyman, 1934).
    """
    if by != "uncertain":
        return dict.fromkeys(sizes, 1.0)
    middles = {stratum: (int(stratum) + 0.5) / _BINS for stratum in sizes}
    return {s: sizes[s] * math.sqrt(p * (1 - p)) for s, p in middles.items()}


def _of_shard(store: OutputStore, shard_id: str, by: SampleBy, count: int, seed: int) -> _Strata:
    found = _Strata(count, Counter(), defaultdict(list))
    draws = np.random.default_rng(_seed_of(shard_id, seed))
    with open_commit(store, shard_id) as commit:
        commit.footer.committed()  # raises for a file without rows that is no commit
        for batch in commit.parquet.iter_batches(_ROWS, columns=_COLUMNS):
            _add_rows(found, batch, shard_id, by, draws)
    return found


def _seed_of(shard_id: str, seed: int) -> int:
    """Return a seed per shard, so that shards can be read in any order."""
    return int(hashlib.sha256(f"{seed} {shard_id}".encode()).hexdigest()[:16], 16)


def _add_rows(
    found: _Strata, rows: pa.RecordBatch, shard_id: str, by: SampleBy, draws: np.random.Generator
) -> None:
    entities = pc.list_flatten(rows["entities"])
    boxes = pc.struct_field(entities, "boxes")
    row_of = pc.list_parent_indices(rows["entities"]).to_numpy()
    entity_of = pc.list_parent_indices(boxes).to_numpy()
    scores = pc.struct_field(pc.list_flatten(boxes), "score").to_numpy(zero_copy_only=False)
    scores = scores.astype(np.float64)
    if by == "uncertain":
        strata = np.minimum(np.nan_to_num(scores) * _BINS, _BINS - 1).astype(np.int64)
    elif by == "flag":
        flags = pc.list_value_length(rows["issues"]).to_numpy() > 0
        strata = flags[row_of[entity_of]].astype(np.int64)
    else:
        strata = np.zeros(len(scores), np.int64)
    numbers = draws.random(len(scores))
    for stratum in np.unique(strata):
        places = np.flatnonzero((strata == stratum) & ~np.isnan(scores))
        first = places[np.argsort(numbers[places])[: found.count]]
        drawn = list[_Drawn]()
        for at in first.tolist():
            entity = entity_of[at]
            index, task = (rows[name][row_of[entity]].as_py() for name in ("index", "task"))
            place = shard_id, index, task, _position(row_of, entity), _position(entity_of, at)
            drawn.append((float(numbers[at]), place, float(scores[at])))
        found.add(str(stratum), len(places), drawn)


def _position(parents: np.ndarray, at: int) -> int:
    """Return the position of an item within its parent's list."""
    return int(at - np.searchsorted(parents, parents[at], "left"))
