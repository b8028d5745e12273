"""`kosmos2 bench reader`, on a few tiny images."""

import json

import pytest

from jobs.cli import run_command
from pipeline.storage import open_output

SMALL = ("--images", "2", "--rounds", "1", "--width", "64", "--height", "48")


def test_each_part_of_both_inputs_is_measured_on_disk_and_on_s3(
    s3_bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    at = f"s3://{s3_bucket}"
    assert run_command(["bench", "reader", *SMALL, "--at", f"{at}/bench/", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    inputs = [(run["store"], run["input"]) for run in found["runs"]]
    assert inputs == [("local", "tar"), ("local", "objects"), ("s3", "tar"), ("s3", "objects")]
    for run in found["runs"]:
        assert min(run["parts"].values()) > 0
        assert run["whole_ms"] > run["parts"]["decode_ms"]
    assert open_output(f"{at}/bench").list("") == []


def test_the_table_has_a_line_per_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["bench", "reader", *SMALL]) == 0
    page = capsys.readouterr().out
    assert "64x48" in page
    assert "objects" in page
    assert "CPUs, load" in page


def test_there_is_nothing_to_measure_without_images(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["bench", "reader", "--images", "0"]) == 2
    assert "--images" in capsys.readouterr().err
