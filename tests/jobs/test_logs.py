"""Log lines for whoever collects them."""

import json
import logging
import sys
from pathlib import Path

import pytest

from jobs.remote.naming import job_name
from pipeline.logs import JsonLines
from pipeline.spec.partition import Partition
from tests.support.drivers import kosmos2


def line(**changes: object) -> dict[str, object]:
    record = logging.makeLogRecord({"name": "a", "levelname": "INFO", "created": 0.25, **changes})
    text = JsonLines("kosmos2-1").format(record)
    assert "\n" not in text
    return json.loads(text)


def test_a_line_is_one_json_object() -> None:
    assert line(msg="%s\nthings", args=("drôle",)) == {
        "time": "1970-01-01T00:00:00.250+00:00",
        "level": "INFO",
        "logger": "a",
        "message": "drôle\nthings",
        "job": "kosmos2-1",
    }


def test_what_a_record_was_given_is_in_its_line() -> None:
    found = line(msg="", shard_id="b", rejected_samples=[{"index": 3}], path=Path("c"))
    assert (found["shard_id"], found["path"]) == ("b", "c")
    assert found["rejected_samples"] == [{"index": 3}]


def test_an_exception_stays_in_its_line() -> None:
    try:
        raise ValueError("no")
    except ValueError:
        assert "ValueError: no" in str(line(msg="", exc_info=sys.exc_info())["exception"])


@pytest.mark.parametrize("output", ["s3://a/b", "s3://a/b/", "s3a://a/b"])
def test_a_job_is_called_by_its_output(output: str) -> None:
    assert job_name(output) == job_name("s3://a/b") != job_name("s3://a/c")


def test_a_job_is_called_by_its_part_too() -> None:
    first, second = (job_name("s3://a/b", Partition.parse(part)) for part in ("0/2", "1/2"))
    assert first == f"{job_name('s3://a/b')}-0-of-2" != second
    assert job_name("s3://a/b", Partition.parse("0/1")) == job_name("s3://a/b")


def test_errors_of_a_job_are_lines_too(tmp_path: Path) -> None:
    command = ["annotate", str(tmp_path / "nothing"), str(tmp_path / "out"), "--log-format=json"]
    done = kosmos2(*command, folder=tmp_path)
    [error] = [json.loads(text) for text in done.stderr.splitlines()]
    assert done.returncode == error["exit_code"] == 2
    assert error["job"] == job_name(str(tmp_path / "out"))
    assert "nothing" in error["message"]
