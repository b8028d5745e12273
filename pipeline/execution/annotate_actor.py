"""What Ray runs: ReadShard, a task: a shard -> its samples; Annotate, an actor: samples -> rows.

What needs torch is imported where it runs: the driver, which imports this module, never does.
"""

import logging
import os
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from kosmos2_core.annotation import Annotation
from kosmos2_core.engine.shared_engine import Usage
from kosmos2_core.engine.vitals import Vitals
from kosmos2_core.errors import AnnotationError, EngineFailed
from kosmos2_core.grounding.grid import IMAGE_SIZE
from kosmos2_core.prompts.tasks import Task
from kosmos2_core.prompts.text import PromptFields
from pipeline.dataset.listings import StoredListings
from pipeline.dataset.shards import Shard
from pipeline.errors import DecoderHung, WorkerDied, WrongIdentity
from pipeline.execution import metrics
from pipeline.execution.cluster import ClusterMarks
from pipeline.execution.isolation import Marks, Room, alone_with
from pipeline.execution.worker_log import log_rejections, logged
from pipeline.faults import fault
from pipeline.logs import LogStyle, write_lines
from pipeline.schema import PIXELS_SIZE, Rejection, annotated_schema, annotation_row
from pipeline.spec.fields import fields_of
from pipeline.spec.identity import Identity, identity_of
from pipeline.spec.job import JobSpec
from pipeline.storage import InputStore, open_output

if TYPE_CHECKING:
    from pipeline.reading.shard_reader import ShardReader

# The first death may be chance, or the node's; after the second each picture is decoded in a
# process that it may kill, so that it costs its sample alone.
ISOLATED_ATTEMPT = 2
# Ray repeats what ran out of memory without counting it against the retries, for ever by default.
READER_ATTEMPTS = 6
# How long the engine's thread waits for Python while another builds rows; by default 5 ms, as
# long as a whole step.
_SWITCH_INTERVAL_S = 0.0005
_ANY_STYLE = LogStyle()

_log = logging.getLogger(__name__)


class ReadShard:
    """One row (a shard) -> its samples. A Ray task."""

    def __init__(self, spec: JobSpec, style: LogStyle = _ANY_STYLE) -> None:
        self._spec = spec
        self._style = style

    def __call__(self, shards: pa.Table) -> Iterator[pa.Table]:
        from pipeline.reading.shard_reader import ShardReader

        _write_lines(self._style)
        output = open_output(self._spec.output, self._spec.output_storage)
        reader = ShardReader(
            store=InputStore(self._spec.input_storage),
            tasks=self._spec.task_names,
            exif=self._spec.exif,
            image_column=self._spec.image_column,
            image_member=self._spec.image_member,
            listings=StoredListings(output),
        )
        for row in shards.to_pylist():
            shard_id, attempt = row["shard_id"], _attempt()
            try:
                tables = tables_of_attempt(reader, Shard(**row), attempt=attempt)
                for table in logged(shard_id, _observed(reader, tables), attempt=attempt):
                    yield table
                    fault("reader.block", shard_id=shard_id)
            except DecoderHung as error:
                _end_process(error, shard_id)


def _observed(reader: "ShardReader", tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    started = time.monotonic()
    for table in tables:
        metrics.observe("kosmos2_read_seconds", time.monotonic() - started)
        metrics.count("kosmos2_images_decoded", reader.decoded.take())
        metrics.count("kosmos2_image_decode_seconds", reader.decode_s.take())
        metrics.count_store_retries()
        yield table
        started = time.monotonic()


def tables_of_attempt(reader: "ShardReader", shard: Shard, *, attempt: int) -> Iterator[pa.Table]:
    """The tables of `shard`, the more carefully the more readers died of it before."""
    if attempt >= READER_ATTEMPTS:
        yield reader.give_up(
            shard,
            f"its reader died {attempt} times, also with pictures decoded in a process of their "
            "own: is there too little memory?",
        )
    elif attempt >= ISOLATED_ATTEMPT:
        yield from reader.read_isolated(shard)
    else:
        yield from reader.read(shard)


def _attempt() -> int:
    """How often this task was begun before; it is again when its worker or its node dies."""
    if not ray.is_initialized():
        return 0
    worker: Any = ray._private.worker.global_worker  # there is no public way to it as yet
    return int(worker.core_worker.get_current_task_attempt_number())


Answers = tuple[Annotation | AnnotationError | WorkerDied, ...]  # of one image, one per task
NamedRow = dict[str, Any]  # `shard_id` and `sample` of a row of `schema.READ`


class Model(Protocol):
    """What an actor annotates with; several threads call it at once."""

    def answer_pixels(
        self, pixels: np.ndarray, tasks: Sequence[Task], fields: Sequence[Sequence[PromptFields]]
    ) -> Sequence[tuple[Annotation | AnnotationError, ...]]:
        """uint8 [N, 3, 224, 224] -> for each image an answer per task, whose prompt is made of
        `fields[image][task]`. Raises EngineFailed."""
        ...

    @property
    def usage(self) -> Usage: ...

    @property
    def vitals(self) -> Vitals: ...


LoadModel = Callable[[JobSpec, Identity], Model]


def load_model(spec: JobSpec, identity: Identity) -> Model:
    """The job's own. Raises WrongIdentity, CheckpointError."""
    from kosmos2_core.shared_annotator import SharedAnnotator
    from pipeline.execution.model import load_annotator, resolved_model

    annotator = load_annotator(spec)
    if identity_of(spec, resolved_model(annotator)) != identity:
        raise WrongIdentity("this node's checkpoint is not the one that job.json names")
    return SharedAnnotator(annotator)


class Annotate:
    """Samples -> annotations and rejections; other rows pass through. A Ray actor.

    Several tables are in work at a time, so that the engine finds the next one's samples while
    the last of one are decoded, and its rows are built. From the third attempt at a table on, the
    samples of its shard are annotated one by one: what kills an actor then is known.
    """

    def __init__(
        self,
        spec: JobSpec,
        identity: Identity,
        load: LoadModel,
        style: LogStyle = _ANY_STYLE,
        marks: Marks = ClusterMarks(),  # noqa: B008, it holds nothing
    ) -> None:
        _write_lines(style)
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        self._model = load(spec, identity)
        self._uses = spec.tasks
        self._choice = spec.fields
        self._schema = annotated_schema(identity.schema_of_rows)
        self._tasks = [use.task for use in spec.tasks]
        self._actor = f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:6]}"
        self._room = Room()
        self._marks = marks
        metrics.watch(lambda: self._model.vitals)
        _log.info("an actor is ready: %s", self._actor, extra={"actor": self._actor})

    def __call__(self, table: pa.Table) -> pa.Table:
        is_sample = table["sample"].is_valid()
        passed = table.select(["shard_id", "rejected", "end"]).filter(pc.invert(is_sample))
        rows = passed.to_pylist()
        samples = table.filter(is_sample)  # once: it copies the pixels
        if samples.num_rows:
            named = samples.select(["shard_id", "sample"]).to_pylist()
            answers = self._answers(_pixels(samples["pixels"]), named)
            for sample, answer in zip(named, answers, strict=True):
                rows += self._rows(sample["shard_id"], sample["sample"], answer)
            rows.append(self._usage(named[0]["shard_id"], images=len(named)))
            metrics.count("kosmos2_tokens", _tokens(rows))
            log_rejections([row["rejected"] for row in rows[len(passed) :] if "rejected" in row])
        return pa.Table.from_pylist(rows, schema=self._schema)

    def _answers(self, pixels: np.ndarray, named: Sequence[NamedRow]) -> Sequence[Answers]:
        if not self._is_suspect({row["shard_id"] for row in named}):
            with self._room.shared():
                return self._answered(pixels, named)
        return [self._answered_alone(pixels[i : i + 1], row) for i, row in enumerate(named)]

    def _is_suspect(self, shard_ids: set[str]) -> bool:
        """Actors died twice with this table in work, or with another one of its shard."""
        if _attempt() >= ISOLATED_ATTEMPT:
            for shard_id in shard_ids:
                self._marks.add(shard_id)
            return True
        return any(self._marks.has(shard_id) for shard_id in shard_ids)

    def _answered_alone(self, pixels: np.ndarray, row: NamedRow) -> Answers:
        name = f"{row['shard_id']}/{row['sample']['index']}"
        found = alone_with(self._room, self._marks, name, lambda: self._answered(pixels, [row])[0])
        return (found,) * len(self._tasks) if isinstance(found, WorkerDied) else found

    def _answered(self, pixels: np.ndarray, named: Sequence[NamedRow]) -> Sequence[Answers]:
        fields = [self._fields(row["sample"]) for row in named]
        try:
            fault("annotate.batch")
            for row in named:
                fault("annotate.sample", key=row["sample"]["key"])
            return self._model.answer_pixels(pixels, self._tasks, fields)
        except EngineFailed as error:
            _end_process(error, named[0]["shard_id"])

    def _fields(self, sample: dict[str, Any]) -> list[PromptFields]:
        """Of each task."""
        is_needed = any(use.sources for use in self._uses)
        metadata = fields_of(sample["metadata"]) if is_needed else {}
        return [use.fields_of(metadata) for use in self._uses]

    def _rows(
        self,
        shard_id: str,
        sample: dict[str, Any],
        answers: Answers,
    ) -> list[dict[str, Any]]:
        if not self._choice.changes_nothing:
            sample = self._choice.applied_to(sample, fields_of(sample["metadata"]))
        return [
            _rejected(shard_id, sample, task, answer)
            if isinstance(answer, AnnotationError | WorkerDied)
            else {"shard_id": shard_id, "annotated": annotation_row(shard_id, sample, answer)}
            for task, answer in zip(self._tasks, answers, strict=True)
        ]

    def _usage(self, shard_id: str, *, images: int) -> dict[str, Any]:
        usage = {"actor": self._actor, "images": images, **asdict(self._model.usage)}
        return {"shard_id": shard_id, "usage": usage}


def _tokens(rows: Sequence[dict[str, Any]]) -> int:
    return sum(len(row["annotated"]["token_ids"]) for row in rows if row.get("annotated"))


def _write_lines(style: LogStyle) -> None:
    if ray.is_initialized():  # otherwise this is whoever called us, who writes as he likes
        write_lines(style)


def _end_process(error: Exception, shard_id: str) -> NoReturn:
    """No exception: with one an actor would live on and fail every table that it gets, and a
    reader's task would not be tried again.

    Ray starts another and gives it what this one had.
    """
    _log.critical(
        "this process ends, at work on %s: %s",
        *(shard_id, error),
        exc_info=error,
        extra={"shard_id": shard_id},
    )
    logging.shutdown()
    os._exit(1)


def _pixels(column: pa.ChunkedArray) -> np.ndarray:
    """Column of 150,528 bytes each -> uint8 [N, 3, 224, 224]."""
    array = column.combine_chunks()
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
