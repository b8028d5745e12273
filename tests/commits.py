"""Datasets as a run would leave them: archives, read and committed by our own code.

Only what the model says is given.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from kosmos2_core.annotation import Annotation
from pipeline.committer import Committer
from pipeline.job import RECORD_KEY, Job, open_job
from pipeline.reading import ShardReader
from pipeline.schema import annotation_row
from pipeline.shards import Shard, freeze_plan, shard_of
from pipeline.spec import JobSpec
from pipeline.storage import InputStore, StorageOptions, open_output
from tests.tars import Member, annotated_table, job_record, tar

Answers = Sequence[Sequence[Annotation]]  # of each sample of a shard, one per task


def write_dataset(
    folder: Path,
    archives: Mapping[str, tuple[Sequence[Member], Answers | None]],
    *,
    tasks: tuple[str, ...] = ("brief",),
    output: str = "",
) -> Job:
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
            annotate(
                committer,
                ShardReader(store=InputStore(), tasks=tasks, exif="apply"),
                shard,
                answers,
            )
    assert all(hasattr(outcome, "annotated") for outcome in committer.close())
    return open_job(output, StorageOptions())


def annotate(committer: Committer, reader: ShardReader, shard: Shard, answers: Answers) -> None:
    for table in reader.read(shard):
        for row in table.to_pylist():
            head = {"shard_id": shard.shard_id}
            if row["sample"] is None:
                rows = [{**head, "rejected": row["rejected"], "end": row["end"]}]
            else:
                rows = [
                    {**head, "annotated": annotation_row(shard.shard_id, row["sample"], answer)}
                    for answer in answers[row["sample"]["index"]]
                ]
            committer.add(annotated_table(rows))
