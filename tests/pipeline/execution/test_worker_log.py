"""What readers and actors say, in which style. tests/e2e/test_jobs.py finds it in Ray's files."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.execution.worker_log import log_rejections, logged
from pipeline.logs import JsonLines, LogStyle, style_here, write_lines
from pipeline.schema import READ
from tests.support.tar_shards import BROKEN, TAR_READER, tar_shard
from tests.support.tars import pictures, tar


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """Its handlers are put back."""
    root = logging.getLogger()
    handlers = root.handlers[:]
    yield root
    root.handlers = handlers
    logging.captureWarnings(False)
    write_lines.cache_clear()


def line_of(capsys: pytest.CaptureFixture[str]) -> str:
    [line] = capsys.readouterr().err.splitlines()
    return line


def test_a_worker_writes_as_its_driver_does(
    root: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines("kosmos2-1"))
    root.handlers = [handler]
    style = style_here()
    assert style == LogStyle(format="json", job="kosmos2-1")
    root.handlers = []
    write_lines(style)
    logging.getLogger("pipeline.somewhere").info("done", extra={"shard_id": "a"})
    line = json.loads(line_of(capsys))
    assert (line["job"], line["shard_id"], line["message"]) == ("kosmos2-1", "a", "done")


@pytest.mark.parametrize("job", ["", "kosmos2-1"])
def test_lines_of_text_name_the_job_that_has_a_name(
    job: str, root: logging.Logger, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    monkeypatch.setenv("KOSMOS2_JOB", job)
    root.handlers = []
    write_lines(style_here())
    logging.getLogger("pipeline.somewhere").info("done")
    assert line_of(capsys).endswith(f"INFO {job} done".replace("  ", " "))


def read(folder: Path, data: bytes, caplog: pytest.LogCaptureFixture) -> dict[str, Any]:
    caplog.set_level(logging.INFO, logger="pipeline")
    one = tar_shard(folder, data)
    tables = list(TAR_READER.read(one))
    assert list(logged(one.shard_id, iter(tables), attempt=2)) == tables
    [record] = caplog.records
    assert record.__dict__["shard_id"] == one.shard_id
    return {**vars(record), "text": record.getMessage()}


def test_a_reader_says_one_line_of_each_shard(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = read(tmp_path, tar(BROKEN + pictures(70)), caplog)
    assert found["text"].endswith(": 71 samples, 2 rejections")
    assert (found["samples"], found["rejected"], found["attempt"]) == (71, 2, 2)
    assert [sample["index"] for sample in found["rejected_samples"]] == [0, 0]  # of each task
    assert {sample["key"] for sample in found["rejected_samples"]} == {"broken"}
    assert found["levelno"] == logging.INFO


def test_of_many_rejected_samples_the_first_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = read(tmp_path, tar([(f"{i}.jpg", b"no picture") for i in range(9)]), caplog)
    assert (found["rejected"], len(found["rejected_samples"])) == (18, 5)


def test_a_shard_that_cannot_be_read_is_a_warning_that_says_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    end = {"samples": 3, "error_type": "input_changed", "message": "not the planned one"}
    table = pa.Table.from_pylist([{"shard_id": "a", "end": {**end, "truncated": False}}], READ)
    list(logged("a", iter([table]), attempt=0))
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().endswith("; input_changed: not the planned one")


def test_an_actor_names_the_samples_that_it_could_not_annotate(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def row(shard_id: str, index: int) -> dict[str, Any]:
        why = {"task": "brief", "error_type": "worker_died"}
        return {"shard_id": shard_id, "index": index, "key": str(index), **why}

    log_rejections([row("a", 1), row("b", 7), row("a", 2)])
    first, second = caplog.records
    assert first.getMessage() == "not annotated of a: 1 (worker_died), 2 (worker_died)"
    assert (first.__dict__["shard_id"], second.__dict__["shard_id"]) == ("a", "b")
    assert [sample["key"] for sample in first.__dict__["rejected_samples"]] == ["1", "2"]
    log_rejections([])
    assert len(caplog.records) == 2
