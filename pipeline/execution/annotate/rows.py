"""The rows that become of samples: annotations column by column, all other rows one by one."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from kosmos2_core.annotation import Annotation
from kosmos2_core.errors import AnnotationError
from pipeline.errors import WorkerDied
from pipeline.execution.annotate.recent import AnswersTo
from pipeline.schema import (
    SAMPLE,
    USAGE,
    Rejection,
    annotated_schema,
    annotation_column,
    answered_row,
)
from pipeline.spec.fields import fields_of
from pipeline.spec.identity import schema_of_rows
from pipeline.spec.job import JobSpec

Row = dict[str, Any]  # of `schema.ANNOTATED`; what it lacks is null


class RowMaker:
    """Makes tables of `schema.ANNOTATED`, with the columns of a job for the samples' own fields."""

    def __init__(self, spec: JobSpec) -> None:
        self.tasks = spec.task_names
        self._choice = spec.fields
        self._schema = annotated_schema(schema_of_rows(spec))

    def table(self, rows: Sequence[Row]) -> pa.Table:
        return pa.Table.from_pylist(rows, schema=self._schema)

    def passed(self, table: pa.Table) -> pa.Table:
        """Return the rows of rows of `schema.READ` without pixels: copies, rejections, ends."""
        return self.table([row for given in table.to_pylist() for row in self._of_passed(given)])

    def annotated(self, samples: pa.Table, answers: Sequence[AnswersTo]) -> pa.Table:
        """Return a row for each annotation, in the order of samples and tasks."""
        found = [
            (number, annotation)
            for number, answer in enumerate(answers)
            for annotation in answer.answers
            if isinstance(annotation, Annotation)
        ]
        annotations = [annotation for _, annotation in found]
        places = pa.array([number for number, _ in found], pa.int64())
        of_sample = samples.select(["shard_id", "sample"]).take(places)
        shard_ids = of_sample["shard_id"].combine_chunks()
        described = self._chosen_of_all(of_sample["sample"].combine_chunks())
        kind = self._schema.field("annotated").type
        column = annotation_column(shard_ids, described, annotations, kind)
        return self._of_columns(shard_id=shard_ids, annotated=column)

    def usage(self, shard_id: str, usage: Mapping[str, Any]) -> pa.Table:
        """Return the row of the use of an engine, a row of `schema.USAGE`."""
        return self._of_columns(shard_id=pa.array([shard_id]), usage=pa.array([usage], USAGE))

    def others(self, samples: pa.Table, answers: Sequence[AnswersTo]) -> list[Row]:
        """Return a row for each answer that is an error, and for each sample that is a copy."""
        return [
            row
            for number, answer in enumerate(answers)
            if answer.original is not None or not answer.is_complete
            for row in self._of_answers(
                samples["shard_id"][number].as_py(), samples["sample"][number].as_py(), answer
            )
        ]

    def _of_columns(self, **columns: pa.Array) -> pa.Table:
        """Return a table whose other columns are null."""
        rows = len(columns["shard_id"])
        return pa.Table.from_arrays(
            [
                columns[field.name] if field.name in columns else pa.nulls(rows, field.type)
                for field in self._schema
            ],
            schema=self._schema,
        )

    def _of_passed(self, row: Row) -> list[Row]:
        shard_id, copy = row["shard_id"], row["answered"]
        if copy is None:
            return [{name: row[name] for name in ("shard_id", "rejected", "end")}]
        sample = self._chosen(row["sample"])
        note = {"index": sample["index"], "original": copy["original"]}
        return [
            {"shard_id": shard_id, "copy": note},
            *(
                {"shard_id": shard_id, "annotated": answered_row(shard_id, sample, answer)}
                for answer in copy["answers"]
            ),
        ]

    def _of_answers(self, shard_id: str, sample: Row, found: AnswersTo) -> Iterator[Row]:
        for task, answer in zip(self.tasks, found.answers, strict=True):
            if not isinstance(answer, Annotation):
                rejected = _rejected(shard_id, sample, task, answer)
                yield {"shard_id": shard_id, "rejected": rejected}
        if found.original is not None and found.is_complete:
            note = {"index": sample["index"], "original": asdict(found.original)}
            yield {"shard_id": shard_id, "copy": note}

    def _chosen_of_all(self, samples: pa.StructArray) -> pa.StructArray:
        if self._choice.changes_nothing:
            return samples
        kind = pa.struct([*SAMPLE, *(each.column for each in self._choice.carried)])
        return pa.array(map(self._chosen, samples.to_pylist()), kind)

    def _chosen(self, sample: Row) -> Row:
        if self._choice.changes_nothing:
            return sample
        return self._choice.applied_to(sample, fields_of(sample["metadata"]))


def _rejected(
    shard_id: str, sample: Row, task: str, error: AnnotationError | WorkerDied
) -> dict[str, Any]:
    rejection = Rejection(
        shard_id=shard_id,
        index=sample["index"],
        task=task,
        key=sample["key"],
        uri=sample["uri"],
        member=sample["member"],
        stage="annotate",
        error_type=error.code,
        message=str(error),
        retriable=error.retriable if isinstance(error, WorkerDied) else error.is_retriable,
    )
    return asdict(rejection)
