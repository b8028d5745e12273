"""Annotation of tables: samples in, annotations and rejections out."""

import os
import socket
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kosmos2_core.engine.vitals import Vitals
from kosmos2_core.errors import AnnotationError, EngineFailed, EngineOutOfMemory
from kosmos2_core.grounding.grid import IMAGE_SIZE
from kosmos2_core.prompts.tasks import Task
from pipeline.errors import WorkerDied
from pipeline.execution import metrics
from pipeline.execution.annotate.images import ImageAnnotator, Model
from pipeline.execution.annotate.isolation import ISOLATED_ATTEMPT, Marks, Room, alone_with
from pipeline.execution.annotate.recent import Answers, AnswersTo, NamedRow, RecentAnswers
from pipeline.execution.ray_private import ClusterMarks, task_attempt
from pipeline.execution.worker_log import end_process, log_rejections
from pipeline.faults import fault
from pipeline.schema import (
    OUT_OF_MEMORY,
    PIXELS_SIZE,
    Rejection,
    ShardEnd,
    annotated_schema,
    annotation_row,
    answered_row,
)
from pipeline.spec.fields import fields_of
from pipeline.spec.identity import schema_of_rows
from pipeline.spec.job import JobSpec


class TableAnnotator:
    """Turns samples into annotations and rejections; other rows pass through.

    Several tables are in flight at a time: the engine starts on the next one's samples while the
    last samples of a table are decoded and its rows are built. From the third attempt at a table
    on, the samples of its shard are annotated one by one, to find one that kills its actor.
    """

    def __init__(
        self,
        spec: JobSpec,
        model: Model,
        marks: Marks = ClusterMarks(),  # noqa: B008 - it has no state
    ) -> None:
        self._annotator = ImageAnnotator(model, spec.tasks)
        self._choice = spec.fields
        self._schema = annotated_schema(schema_of_rows(spec))
        self.name = f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:6]}"
        self._room = Room()
        self._marks = marks
        self._recent = RecentAnswers() if spec.skip_copies else None

    def __call__(self, table: pa.Table) -> pa.Table:
        is_sample = table["pixels"].is_valid()
        passed = table.drop_columns(["pixels"]).filter(pc.invert(is_sample))
        rows = [row for given in passed.to_pylist() for row in self._passed(given)]
        # A filter copies the pixels; most tables hold samples alone.
        samples = table.filter(is_sample) if len(passed) else table
        if samples.num_rows:
            named = samples.select(["shard_id", "sample"]).to_pylist()
            try:
                answers = self._answers(_pixels(samples["pixels"]), named)
            except EngineOutOfMemory as error:
                # No sample is to blame, and another process would fail as well.
                end = ShardEnd(samples=0, error_type=OUT_OF_MEMORY, message=str(error))
                kept = pa.Table.from_pylist(rows, schema=self._schema)
                return pa.concat_tables([kept, self.ends(samples, end)])
            made = [
                row
                for sample, answer in zip(named, answers, strict=True)
                for row in self._rows(sample["shard_id"], sample["sample"], answer)
            ]
            images = sum(answer.original is None for answer in answers)
            rows += [*made, self._usage(named[0]["shard_id"], images=images)]
            metrics.count("kosmos2_tokens", _tokens(made))
            log_rejections([row["rejected"] for row in made if "rejected" in row])
        return pa.Table.from_pylist(rows, schema=self._schema)

    def ends(self, table: pa.Table, end: ShardEnd) -> pa.Table:
        """Return rows that end the shards of a table in this way."""
        shard_ids = dict.fromkeys(table["shard_id"].to_pylist())
        rows = [{"shard_id": shard_id, "end": asdict(end)} for shard_id in shard_ids]
        return pa.Table.from_pylist(rows, schema=self._schema)

    @property
    def vitals(self) -> Vitals:
        return self._annotator.model.vitals

    def _passed(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the rows of a row without pixels: a copy, a rejection or an end."""
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

    def _answers(self, pixels: np.ndarray, named: Sequence[NamedRow]) -> list[AnswersTo]:
        if self._is_suspect({row["shard_id"] for row in named}):
            alone = [self._answered_alone(pixels[i : i + 1], row) for i, row in enumerate(named)]
            return [AnswersTo(answers=answers) for answers in alone]
        with self._room.shared():
            if self._recent is not None:
                return self._recent.answers(pixels, named, self._answered)
            return [AnswersTo(answers=answers) for answers in self._answered(pixels, named)]

    def _is_suspect(self, shard_ids: set[str]) -> bool:
        """Return whether actors died twice while they processed a table of these shards."""
        if task_attempt() >= ISOLATED_ATTEMPT:
            for shard_id in shard_ids:
                self._marks.add(shard_id)
            return True
        return any(self._marks.has(shard_id) for shard_id in shard_ids)

    def _answered_alone(self, pixels: np.ndarray, row: NamedRow) -> Answers:
        name = f"{row['shard_id']}/{row['sample']['index']}"
        found = alone_with(self._room, self._marks, name, lambda: self._answered(pixels, [row])[0])
        return (found,) * len(self._annotator.tasks) if isinstance(found, WorkerDied) else found

    def _answered(self, pixels: np.ndarray, named: Sequence[NamedRow]) -> Sequence[Answers]:
        is_needed = self._annotator.needs_fields
        texts = [row["sample"]["metadata"] if is_needed else None for row in named]
        try:
            fault("annotate.batch")
            for row in named:
                fault("annotate.sample", key=row["sample"]["key"])
            return self._annotator.answers(pixels, [fields_of(text) for text in texts])
        except EngineOutOfMemory:
            raise
        except EngineFailed as error:
            end_process(error, named[0]["shard_id"])

    def _rows(
        self,
        shard_id: str,
        sample: dict[str, Any],
        found: AnswersTo,
    ) -> list[dict[str, Any]]:
        sample = self._chosen(sample)
        rows = [
            _rejected(shard_id, sample, task, answer)
            if isinstance(answer, AnnotationError | WorkerDied)
            else {"shard_id": shard_id, "annotated": annotation_row(shard_id, sample, answer)}
            for task, answer in zip(self._annotator.tasks, found.answers, strict=True)
        ]
        if found.original is None or not found.is_copied:
            return rows
        note = {"index": sample["index"], "original": asdict(found.original)}
        return [*rows, {"shard_id": shard_id, "copy": note}]

    def _chosen(self, sample: dict[str, Any]) -> dict[str, Any]:
        if self._choice.changes_nothing:
            return sample
        return self._choice.applied_to(sample, fields_of(sample["metadata"]))

    def _usage(self, shard_id: str, *, images: int) -> dict[str, Any]:
        model, vitals = self._annotator.model, self.vitals
        usage = {"actor": self.name, "images": images, **asdict(model.usage)}
        return {
            "shard_id": shard_id,
            "usage": {**usage, "slots": vitals.slots, "live": vitals.live},
        }


def _tokens(rows: Sequence[dict[str, Any]]) -> int:
    return sum(len(row["annotated"]["token_ids"]) for row in rows if row.get("annotated"))


def _pixels(column: pa.ChunkedArray) -> np.ndarray:
    """Return a column of 150,528 bytes per value as uint8 [N, 3, 224, 224]."""
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    data = np.frombuffer(array.buffers()[1], np.uint8)
    start = array.offset * PIXELS_SIZE
    flat = data[start : start + len(array) * PIXELS_SIZE]
    return flat.reshape(-1, 3, IMAGE_SIZE, IMAGE_SIZE)


def _rejected(
    shard_id: str, sample: dict[str, Any], task: Task, error: AnnotationError | WorkerDied
) -> dict[str, Any]:
    rejection = Rejection(
        shard_id=shard_id,
        index=sample["index"],
        task=task.name,
        key=sample["key"],
        uri=sample["uri"],
        member=sample["member"],
        stage="annotate",
        error_type=error.code,
        message=str(error),
        retriable=error.retriable if isinstance(error, WorkerDied) else error.is_retriable,
    )
    return {"shard_id": shard_id, "rejected": asdict(rejection)}
