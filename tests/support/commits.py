"""Datasets as a run would leave them: archives, read and committed by our own code.

Only what the model says is given.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kosmos2_core.annotation import Annotation
from pipeline.dataset.dataset import StoredDataset, open_dataset
from pipeline.dataset.layout import RECORD_KEY
from pipeline.dataset.listings import StoredListings
from pipeline.dataset.shards import Shard, extend_plan, freeze_plan, shard_of
from pipeline.driver.committer import Committer
from pipeline.plan.planning import settle_plan
from pipeline.reading.shard_reader import ShardReader
from pipeline.spec.job import JobSpec
from pipeline.storage import InputStore, StorageOptions, open_output
from tests.support.tars import Member, Row, annotated_table, annotation_row, job_record, tar

Answers = Sequence[Sequence[Annotation]]  # of each sample of a shard, one per task
Say = Callable[[Row], Sequence[Annotation]]  # the same, from a row of `schema.SAMPLE`


def write_dataset(
    folder: Path,
    archives: Mapping[str, tuple[Sequence[Member], Answers | None]],
    *,
    tasks: tuple[str, ...] = ("brief",),
    output: str = "",
) -> StoredDataset:
    """Archives by file name; one whose answers are None is planned, not committed."""
    (folder / "in").mkdir(parents=True)
    for name, (members, _) in archives.items():
        mode = "w:gz" if name.endswith("gz") else "w"
        (folder / "in" / name).write_bytes(tar(members, mode=mode))
    output = output or str(folder / "out")
    store = open_output(output)
    record = job_record(JobSpec(input=str(folder / "in"), output=output, task=tasks))
    plan = freeze_plan(store, list(map(shard_of, InputStore().list(str(folder / "in")).objects)))
    store.create(RECORD_KEY, record.model_dump_json().encode())
    committer = Committer(store, record, plan.shards, max_reject_rate=1)
    for shard in plan.shards:
        answers = archives[shard.uri.rpartition("/")[2]][1]
        if answers is not None:
            reader = ShardReader(store=InputStore(), tasks=tasks, exif="apply")
            annotate(committer, reader, shard, lambda sample, of=answers: of[sample["index"]])
    assert all(hasattr(outcome, "annotated") for outcome in committer.close())
    return open_dataset(output, StorageOptions())


def extend_dataset(
    dataset: StoredDataset, archives: Mapping[str, tuple[Sequence[Member], Answers]]
) -> StoredDataset:
    """Add archives beside those of the input, as `annotate --extend` does."""
    folder = Path(dataset.record.spec.input)
    for name, (members, _) in archives.items():
        (folder / name).write_bytes(tar(members, mode="w:gz" if name.endswith("gz") else "w"))
    found = map(shard_of, InputStore().list(str(folder)).objects)
    plan = extend_plan(dataset.store, dataset.plan, list(found))
    tasks = dataset.record.spec.task_names
    committer = Committer(dataset.store, dataset.record, plan.shards, max_reject_rate=1)
    for shard in plan.shards[len(dataset.plan.shards) :]:
        answers = archives[shard.uri.rpartition("/")[2]][1]
        reader = ShardReader(store=InputStore(), tasks=tasks, exif="apply")
        annotate(committer, reader, shard, lambda sample, of=answers: of[sample["index"]])
    assert all(hasattr(outcome, "annotated") for outcome in committer.close())
    return open_dataset(dataset.store.uri, StorageOptions())


def dataset_of(source: Path, folder: Path, say: Say, **options: Any) -> StoredDataset:
    """Of whatever input there is, planned as a run would; one task."""
    spec = JobSpec(input=str(source), output=str(folder), task=("brief",), **options)
    store = open_output(spec.output)
    record, plan = job_record(spec), settle_plan(store, spec)
    store.create(RECORD_KEY, record.model_dump_json().encode())
    committer = Committer(store, record, plan.shards, max_reject_rate=0)
    reader = ShardReader(
        store=InputStore(),
        tasks=spec.task_names,
        exif="apply",
        image_column=spec.image_column,
        listings=StoredListings(store),
    )
    for shard in plan.shards:
        annotate(committer, reader, shard, say)
    assert all(hasattr(outcome, "annotated") for outcome in committer.close())
    return open_dataset(spec.output, StorageOptions())


def annotate(committer: Committer, reader: ShardReader, shard: Shard, say: Say) -> None:
    head = {"shard_id": shard.shard_id}
    for table in reader.read(shard):
        rows = list[Row]()
        for row in table.to_pylist():
            if row["sample"] is None:
                rows.append({**head, "rejected": row["rejected"], "end": row["end"]})
            else:
                rows += (
                    {**head, "annotated": annotation_row(shard.shard_id, row["sample"], answer)}
                    for answer in say(row["sample"])
                )
        committer.add(annotated_table(rows))
