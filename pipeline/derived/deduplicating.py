"""Deduplication: keep one of each image, and reject all annotations of its copies.

Each rejection names the image that is kept. What the source has committed since is compared with
the images that are kept, and among itself.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa

from pipeline.dataset.commit import Committed, open_commit
from pipeline.dataset.dataset import StoredDataset
from pipeline.dataset.layout import DEDUP_ROUNDS
from pipeline.dataset.ledger import Ledger
from pipeline.dataset.shards import Shard
from pipeline.derived.account import Account
from pipeline.derived.deriving import Derived, Pruned, PruneStep, derive
from pipeline.derived.duplicates import Duplicates, Twin
from pipeline.derived.looks import Looks
from pipeline.derived.options import DedupOptions
from pipeline.derived.pruning import amount, rejections
from pipeline.derived.rounds import Round, add_round, read_rounds
from pipeline.errors import CorruptOutput, SpecError
from pipeline.faults import fault
from pipeline.progress import ObserveShards
from pipeline.reading.sample_reader import SampleReader
from pipeline.spec.identity import Derivation
from pipeline.storage import InputStore, OutputStore

_STAGE = "dedup"
SAME, ALIKE = "duplicate", "near_duplicate"
_THREADS = 8
_HASHES = ["index", "image_sha256", "width", "height"]


def dedup_dataset(
    dataset: StoredDataset,
    inputs: InputStore,
    destination: OutputStore,
    options: DedupOptions,
    observe: ObserveShards = lambda done, of: None,
) -> Derived:
    """Write a dataset with one of each annotated image of `dataset` to `destination`.

    If `destination` holds such a dataset, what it keeps stays, and the commits that are new since
    then are added. Raises SpecError if the destination holds something else, InputChanged if an
    image to compare differs from the one that was annotated, PipelineError if storage fails.
    """
    commits = Ledger(dataset.store).summaries()
    derivation = Derivation(
        operation="dedup",
        source_fingerprint=dataset.record.fingerprint,
        parameters=options.parameters,
    )
    work = _Deduplication(dataset, inputs, destination, options, commits)
    return derive(dataset, destination, options.dest_storage, derivation, work.steps, observe)


@dataclass(frozen=True, slots=True)
class _Deduplication:
    dataset: StoredDataset
    inputs: InputStore
    destination: OutputStore
    options: DedupOptions
    commits: Mapping[str, Committed]

    def steps(self, done: Mapping[str, Committed]) -> list[PruneStep]:
        """Return a step for each round; commits that no round has make the last one."""
        rounds = read_rounds(self.destination)
        self._check_unchanged(rounds)
        known = {shard_id for each in rounds for shard_id in each.commit_ids}
        planned = [s.shard_id for s in self.dataset.plan.shards]
        new = [s for s in planned if s in self.commits and s not in known]
        if new:
            _check_recorded(self.destination, done.keys() & set(new))
            fault("dedup.before_round")
            ids = {shard_id: self.commits[shard_id].commit_id for shard_id in new}
            rounds.append(add_round(self.destination, rounds, ids))
        return [
            PruneStep(
                commits={shard_id: self.commits[shard_id] for shard_id in each.commit_ids},
                prepare=partial(self._keeping_one, rounds[:number], each),
                settled=each.settled,
            )
            for number, each in enumerate(rounds)
        ]

    def _check_unchanged(self, rounds: Sequence[Round]) -> None:
        """Raise SpecError if the source has replaced a commit whose images were compared."""
        for each in rounds:
            for shard_id, commit_id in each.commit_ids.items():
                source = self.commits.get(shard_id)
                if source is None or source.commit_id != commit_id:
                    raise SpecError(
                        f"{self.dataset.store.uri} has annotated {shard_id} again since "
                        f"{self.destination.uri} compared its images, and what was kept stays; "
                        "choose another DEST"
                    )

    @contextmanager
    def _keeping_one(self, earlier: Sequence[Round], this: Round) -> Iterator["_KeepOne"]:
        plan = self.dataset.plan.shards
        kept = _numbered(plan, {shard_id for each in earlier for shard_id in each.commit_ids})
        new = _numbered(plan, this.commit_ids)
        with TemporaryDirectory(prefix="kosmos2-dedup-") as folder:
            found = Duplicates(Path(folder) / "images.duckdb", keep=self.options.keep)
            with closing(found):
                for ordinal, shard in kept:
                    found.add_images(ordinal, _images(self.destination, shard), is_kept=True)
                for ordinal, shard in new:
                    found.add_images(ordinal, _images(self.dataset.store, shard))
                found.rank()
                if self.options.near is not None:
                    self._compare([*kept, *new], found, near=self.options.near)
                yield _KeepOne(found, [shard.shard_id for shard in plan])

    def _compare(
        self, shards: Sequence[tuple[int, Shard]], found: Duplicates, *, near: int
    ) -> None:
        # Images with the same bytes are already known as copies.
        reader = SampleReader.of_job(self.inputs, self.dataset.record.identity)
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="looks") as pool:
            looks = Looks(self.dataset, self.destination, reader, pool)
            for ordinal, shard in shards:
                fault("dedup.before_looks", shard_id=shard.shard_id)
                found.add_looks(ordinal, looks.of_shard(shard, found.different(ordinal)))
        found.compare(near=near)


def _check_recorded(destination: OutputStore, unknown: Collection[str]) -> None:
    """Raise CorruptOutput for shards that were made, although no round has them."""
    if unknown:
        raise CorruptOutput(
            f"{destination.uri}/{DEDUP_ROUNDS} has no record of {min(unknown)}, which is "
            "committed; restore it from a backup, or choose another DEST"
        )


def _numbered(plan: Sequence[Shard], shard_ids: Collection[str]) -> list[tuple[int, Shard]]:
    return [(i, shard) for i, shard in enumerate(plan) if shard.shard_id in shard_ids]


def _images(store: OutputStore, shard: Shard) -> pa.Table:
    with open_commit(store, shard.shard_id) as commit:
        return commit.parquet.read(columns=_HASHES)


class _KeepOne:
    def __init__(self, duplicates: Duplicates, shard_ids: list[str]) -> None:
        self._duplicates = duplicates
        self._shard_ids = shard_ids
        self._ordinals = {shard_id: ordinal for ordinal, shard_id in enumerate(shard_ids)}

    def __call__(self, shard: Shard, rows: pa.Table) -> Pruned:
        twins = self._duplicates.of_shard(self._ordinals[shard.shard_id])
        indices = rows["index"].to_pylist()
        is_copy = np.array([index in twins for index in indices], np.bool_)
        kept = rows.filter(pa.array(~is_copy))
        of_copies = [twins[index] for index in indices if index in twins]
        kinds = [SAME if twin.distance is None else ALIKE for twin in of_copies]
        return Pruned(
            annotated=kept,
            rejected=rejections(
                rows.filter(pa.array(is_copy)),
                stage=_STAGE,
                error_types=kinds,
                messages=[self._said(twin) for twin in of_copies],
            ),
            account=Account(
                before=amount(rows),
                after=amount(kept),
                dropped=Counter(f"annotation: {kind}" for kind in kinds),
            ),
        )

    def _said(self, twin: Twin) -> str:
        place = f"{self._shard_ids[twin.place.shard]} #{twin.place.index}"
        if twin.distance is None:
            return f"the same bytes as {place}"
        return f"looks like {place}: {twin.distance} of 64 bits differ"
