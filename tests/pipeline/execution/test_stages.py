"""The stages as plain callables: tables in, tables out. tests/e2e has them on Ray."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from kosmos2_core.annotation import Annotation
from kosmos2_core.engine.vitals import Vitals
from kosmos2_core.errors import AnnotationError, EngineFailed, EngineOutOfMemory, MissingField
from pipeline.concurrency import SharedCounter
from pipeline.dataset.shards import Shard
from pipeline.errors import DecoderHung
from pipeline.execution import read_task, worker_log
from pipeline.execution.annotate import tables
from pipeline.execution.annotate.actor import Annotate
from pipeline.execution.annotate.isolation import ISOLATED_ATTEMPT
from pipeline.execution.annotate.tables import TableAnnotator
from pipeline.schema import ANNOTATED, READ
from pipeline.spec.job import JobSpec
from tests.support.annotators import Answering, SetOfMarks
from tests.support.tar_shards import tar_shard
from tests.support.tars import a_sample, a_shard, end_row, picture, rejected_row, tar

SPEC = JobSpec(input="in", output="out", task=("brief", "detailed"))


def annotate(model: Any) -> TableAnnotator:
    return TableAnnotator(SPEC, model, marks=SetOfMarks())


def sample_row(index: int, shard: str = "a") -> dict[str, Any]:
    pixels = np.full(3 * 224 * 224, index, np.uint8).tobytes()
    return {"shard_id": shard, "sample": a_sample(index), "pixels": pixels}


def read_table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=READ)


def kind(table: pa.Table, name: str) -> list[dict[str, Any]]:
    return table[name].drop_null().to_pylist()


def test_each_sample_gets_an_annotation_per_task() -> None:
    found = annotate(Answering())(read_table(*map(sample_row, range(5))))
    assert found.schema.equals(ANNOTATED)
    assert [(row["index"], row["task"], row["caption"]) for row in kind(found, "annotated")] == [
        (i, task, f"brightness {i}") for i in range(5) for task in ("brief", "detailed")
    ]


def test_rows_of_several_shards_keep_their_shard() -> None:
    found = annotate(Answering())(read_table(sample_row(1, "a"), sample_row(2, "b")))
    assert [(row["shard_id"], row["index"]) for row in kind(found, "annotated")] == [
        ("a", 1), ("a", 1), ("b", 2), ("b", 2)
    ]  # fmt: skip


def test_a_slice_of_a_table_is_of_its_own_pixels() -> None:
    found = annotate(Answering())(read_table(*map(sample_row, range(5))).slice(3, 1))
    assert {row["caption"] for row in kind(found, "annotated")} == {"brightness 3"}


def test_what_cannot_be_annotated_is_rejected_for_that_task_alone() -> None:
    found = annotate(Answering())(read_table(*map(sample_row, (12, 13, 14))))
    [rejected] = kind(found, "rejected")
    assert (rejected["index"], rejected["task"]) == (13, "detailed")
    assert (rejected["stage"], rejected["error_type"]) == ("annotate", "non_finite_logits")
    assert len(kind(found, "annotated")) == 5


def test_a_prompt_is_made_of_the_samples_own_fields() -> None:
    spec = JobSpec(input="in", output="out", task=("brief", "ground:phrase=words"))
    model, rows = Answering(), [sample_row(index) for index in range(3)]
    rows[0]["sample"]["metadata"] = json.dumps({"words": "a dog", "other": 1})
    rows[1]["sample"]["metadata"] = json.dumps({"other": 1})
    rows[2]["sample"]["metadata"] = None
    TableAnnotator(spec, model, marks=SetOfMarks())(read_table(*rows))
    assert model.fields == [[{}, {"phrase": "a dog"}], [{}, {}], [{}, {}]]


def test_another_try_will_not_help_a_sample_without_the_fields() -> None:
    class Unasked(Answering):
        def _answer(self, brightness: int, task: str) -> Annotation | AnnotationError:
            return MissingField("task ground needs a phrase")

    [rejected, _] = kind(annotate(Unasked())(read_table(sample_row(0))), "rejected")
    assert (rejected["error_type"], rejected["retriable"]) == ("missing_field", False)


def test_other_rows_pass_through() -> None:
    shard = a_shard()
    rows = [rejected_row(shard, 0), end_row(shard, 1)]
    found = annotate(Answering())(read_table(*rows))
    assert found.equals(pa.Table.from_pylist(rows, schema=ANNOTATED))


def test_one_row_tells_the_use_of_the_engine() -> None:
    actor = annotate(Answering())
    tables = [actor(read_table(*map(sample_row, range(3)))) for _ in range(2)]
    [first], [second] = (kind(table, "usage") for table in tables)
    assert first == second
    assert (first["images"], first["busy_s"], first["span_s"]) == (3, 3.0, 4.0)
    assert (
        first["actor"]
        != kind(annotate(Answering())(read_table(sample_row(0))), "usage")[0]["actor"]
    )


def test_from_its_third_attempt_on_a_table_is_annotated_sample_by_sample(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[int] = []

    class Counting(Answering):
        def answer_pixels(self, pixels: np.ndarray, *others: Any) -> list[Any]:
            sizes.append(len(pixels))
            return super().answer_pixels(pixels, *others)

    table = read_table(*map(sample_row, range(5)))
    actor = annotate(Counting())
    expected = kind(actor(table), "annotated")
    actor._marks = marks = SetOfMarks({"a/3"})  # an actor died of it
    monkeypatch.setattr(tables, "task_attempt", lambda: ISOLATED_ATTEMPT)
    found = actor(table)
    assert sizes == [5, 1, 1, 1, 1]
    assert kind(found, "annotated") == [row for row in expected if row["index"] != 3]
    assert [
        (row["index"], row["task"], row["stage"], row["error_type"], row["retriable"])
        for row in kind(found, "rejected")
    ] == [(3, task, "annotate", "worker_died", True) for task in ("brief", "detailed")]
    assert marks == {"a", "a/3"}


def test_tables_of_a_shard_that_killed_its_actors_are_annotated_sample_by_sample_at_once() -> None:
    sizes: list[int] = []

    class Counting(Answering):
        def answer_pixels(self, pixels: np.ndarray, *others: Any) -> list[Any]:
            sizes.append(len(pixels))
            return super().answer_pixels(pixels, *others)

    actor = annotate(Counting())
    actor._marks = SetOfMarks({"another"})
    table = read_table(*map(sample_row, range(3)))
    actor(table)
    actor._marks.add("a")
    actor(table)
    assert sizes == [3, 1, 1, 1]


def test_a_reader_tells_at_the_end_of_a_shard_what_reading_took(tmp_path: Path) -> None:
    members = [("0.jpg", picture(0)), ("1.jpg", picture(1))]
    shards = pa.Table.from_pylist([asdict(tar_shard(tmp_path, tar(members)))])
    spec = SPEC.model_copy(update={"input": str(tmp_path), "output": str(tmp_path / "out")})
    [table] = read_task.ReadShard(spec)(shards)
    assert table.schema.equals(READ)
    [end] = kind(table, "end")
    assert end["samples"] == 2
    assert min(end["read_s"], end["cpu_s"]) > 0


def test_a_reader_whose_decoder_hangs_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ended(BaseException):
        pass

    def end(code: int) -> None:
        assert code != 0
        raise Ended

    def hang(*_: object, **__: object) -> None:
        raise DecoderHung("no answer")

    monkeypatch.setattr(read_task, "tables_of_attempt", hang)
    monkeypatch.setattr(worker_log.os, "_exit", end)
    monkeypatch.setattr(worker_log.logging, "shutdown", lambda: None)
    shards = pa.Table.from_pylist([asdict(a_shard())])
    with pytest.raises(Ended):
        list(read_task.ReadShard(SPEC)(shards))


def test_an_actor_whose_engine_broke_down_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ended(BaseException):
        pass

    class Broken:
        vitals = Vitals(slots=2)

        def answer_pixels(self, *_: Any) -> list[Any]:
            raise EngineFailed("the engine stopped")

    def end(code: int) -> None:
        assert code != 0
        raise Ended

    monkeypatch.setattr(worker_log.os, "_exit", end)
    monkeypatch.setattr(worker_log.logging, "shutdown", lambda: None)
    with pytest.raises(Ended):
        annotate(Broken())(read_table(sample_row(0)))


@pytest.mark.parametrize("attempt", [0, ISOLATED_ATTEMPT])
def test_lack_of_memory_ends_shards_and_rejects_no_sample(
    monkeypatch: pytest.MonkeyPatch, attempt: int
) -> None:
    class Full:
        vitals = Vitals(slots=2)

        def answer_pixels(self, *_: Any) -> list[Any]:
            raise EngineOutOfMemory("2 slots: memory ran out; use fewer --slots than 2")

    monkeypatch.setattr(tables, "task_attempt", lambda: attempt)
    actor = annotate(Full())
    found = actor(read_table(sample_row(0), sample_row(1)))
    [end] = kind(found, "end")
    assert (end["error_type"], end["retriable"]) == ("out_of_memory", False)
    assert end["message"] == "2 slots: memory ran out; use fewer --slots than 2"
    assert kind(found, "rejected") == kind(found, "annotated") == []
    assert "a/0" not in actor._marks  # its process did not die


def test_an_error_that_nobody_expects_ends_the_shards_of_a_table_with_its_words(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise pa.ArrowTypeError("no float16 here")

    monkeypatch.setattr(TableAnnotator, "__call__", fail)
    actor = Annotate.__new__(Annotate)
    TableAnnotator.__init__(actor, SPEC, Answering(), marks=SetOfMarks())
    block = actor(read_table(sample_row(0, "a"), sample_row(1, "b"), sample_row(2, "b")))
    ends = kind(pa.ipc.open_stream(block["rows"][0].as_buffer()).read_all(), "end")
    assert [(end["error_type"], end["retriable"]) for end in ends] == [
        ("unexpected_error", True)
    ] * 2
    assert "ArrowTypeError: no float16 here; the log of the worker" in ends[0]["message"]
    assert "Traceback" in caplog.text


def test_an_error_that_nobody_expects_ends_the_shard_that_is_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Reader:
        decoded = decode_s = SharedCounter()

        def read(self, shard: Shard) -> Iterator[pa.Table]:
            yield read_table(sample_row(0, shard.shard_id))
            if shard.shard_id == a_shard("a").shard_id:
                raise ZeroDivisionError("of a parser")
            yield read_table(end_row(shard, 1))

    shards = [a_shard("a"), a_shard("b")]
    read = read_task.ReadShard(SPEC, make_reader=lambda spec: Reader())
    [table] = read(pa.Table.from_pylist([asdict(shard) for shard in shards]))
    assert table["shard_id"].to_pylist() == [shard.shard_id for shard in shards for _ in range(2)]
    broken, whole = kind(table, "end")
    assert broken["error_type"] == "unexpected_error"
    assert broken["message"].startswith("ZeroDivisionError: of a parser; ")
    assert whole["error_type"] is None
    assert "Traceback" in caplog.text
