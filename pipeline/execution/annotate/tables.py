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

from kosmos2_core.annotation import Annotation
from kosmos2_core.engine.vitals import Vitals
from kosmos2_core.errors import EngineFailed, EngineOutOfMemory
from kosmos2_core.grounding.grid import IMAGE_SIZE
from pipeline.errors import WorkerDied
from pipeline.execution import metrics
from pipeline.execution.annotate.images import ImageAnnotator, Model
from pipeline.execution.annotate.isolation import ISOLATED_ATTEMPT, Marks, Room, alone_with
from pipeline.execution.annotate.recent import Answers, AnswersTo, NamedSample, RecentAnswers
from pipeline.execution.annotate.rows import RowMaker
from pipeline.execution.ray_private import ClusterMarks, task_attempt
from pipeline.execution.worker_log import end_process, log_rejections
from pipeline.faults import fault
from pipeline.schema import OUT_OF_MEMORY, PIXELS_SIZE, ShardEnd
from pipeline.spec.fields import fields_of
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
        self._rows = RowMaker(spec)
        self.name = f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:6]}"
        self._room = Room()
        self._marks = marks
        self._recent = RecentAnswers() if spec.skip_copies else None

    def __call__(self, table: pa.Table) -> pa.Table:
        is_sample = table["pixels"].is_valid()
        passed = table.drop_columns(["pixels"]).filter(pc.invert(is_sample))
        if len(passed) == len(table):
            return self._rows.passed(passed)
        if not len(passed):  # as of most tables; a filter would copy the pixels
            return pa.concat_tables(self._made(table))
        return pa.concat_tables([self._rows.passed(passed), *self._made(table.filter(is_sample))])

    def ends(self, table: pa.Table, end: ShardEnd) -> pa.Table:
        """Return rows that end the shards of a table in this way."""
        shard_ids = dict.fromkeys(table["shard_id"].to_pylist())
        return self._rows.table(
            [{"shard_id": shard_id, "end": asdict(end)} for shard_id in shard_ids]
        )

    @property
    def vitals(self) -> Vitals:
        return self._annotator.model.vitals

    def _made(self, samples: pa.Table) -> list[pa.Table]:
        try:
            answers = self._answers(_pixels(samples["pixels"]), _named(samples))
        except EngineOutOfMemory as error:
            # No sample is to blame, and another process would fail as well.
            end = ShardEnd(samples=0, error_type=OUT_OF_MEMORY, message=str(error))
            return [self.ends(samples, end)]
        others = self._rows.others(samples, answers)
        metrics.count("kosmos2_tokens", _tokens(answers))
        log_rejections([row["rejected"] for row in others if "rejected" in row])
        images = sum(answer.original is None for answer in answers)
        usage = self._rows.usage(samples["shard_id"][0].as_py(), self._usage(images))
        annotated = self._rows.annotated(samples, answers)
        return [annotated, self._rows.table(others), usage] if others else [annotated, usage]

    def _answers(self, pixels: np.ndarray, named: Sequence[NamedSample]) -> list[AnswersTo]:
        if self._is_suspect({sample.shard_id for sample in named}):
            alone = [self._answered_alone(pixels[i : i + 1], each) for i, each in enumerate(named)]
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

    def _answered_alone(self, pixels: np.ndarray, sample: NamedSample) -> Answers:
        def answered() -> Answers:
            return self._answered(pixels, [sample])[0]

        found = alone_with(self._room, self._marks, f"{sample.shard_id}/{sample.index}", answered)
        return (found,) * len(self._annotator.tasks) if isinstance(found, WorkerDied) else found

    def _answered(self, pixels: np.ndarray, named: Sequence[NamedSample]) -> Sequence[Answers]:
        is_needed = self._annotator.needs_fields
        texts = [sample.metadata if is_needed else None for sample in named]
        try:
            fault("annotate.batch")
            for sample in named:
                fault("annotate.sample", key=sample.key)
            return self._annotator.answers(pixels, [fields_of(text) for text in texts])
        except EngineOutOfMemory:
            raise
        except EngineFailed as error:
            end_process(error, named[0].shard_id)

    def _usage(self, images: int) -> dict[str, Any]:
        usage, vitals = asdict(self._annotator.model.usage), self.vitals
        engine = {"slots": vitals.slots, "live": vitals.live}
        return {"actor": self.name, "images": images, **usage, **engine}


def _named(samples: pa.Table) -> list[NamedSample]:
    described = samples["sample"].combine_chunks()
    names = ("index", "key", "image_sha256", "metadata")
    columns = [samples["shard_id"], *(described.field(name) for name in names)]
    return [
        NamedSample(shard_id=shard_id, index=index, key=key, image_sha256=sha256, metadata=metadata)
        for shard_id, index, key, sha256, metadata in zip(
            *(column.to_pylist() for column in columns), strict=True
        )
    ]


def _tokens(answers: Sequence[AnswersTo]) -> int:
    return sum(
        len(each.token_ids)
        for answer in answers
        for each in answer.answers
        if isinstance(each, Annotation)
    )


def _pixels(column: pa.ChunkedArray) -> np.ndarray:
    """Return a column of 150,528 bytes per value as uint8 [N, 3, 224, 224]."""
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    data = np.frombuffer(array.buffers()[1], np.uint8)
    start = array.offset * PIXELS_SIZE
    flat = data[start : start + len(array) * PIXELS_SIZE]
    return flat.reshape(-1, 3, IMAGE_SIZE, IMAGE_SIZE)
