"""`kosmos2 plan`."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers.utils.logging import enable_progress_bar

from jobs.cli import run_command
from jobs.commands import plan
from pipeline.costs.interval import Estimate
from tests.support.tars import pictures, tar

SHARDS, IMAGES = 3, 6


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    for i in range(SHARDS):
        (tmp_path / f"{i}.tar").write_bytes(tar(pictures(IMAGES)))
    return tmp_path


def planned(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert run_command(["plan", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_sample_tells_hours_and_money(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(shards), "--sample", "9", "--actors", "1:4", "--gpu-hour-cost", "2.5"]
    found = planned(capsys, *arguments)
    assert found["images"]["value"] == SHARDS * IMAGES
    assert found["sample"]["images"] == 9
    assert found["sample"]["model"]["id"] == "shapes"
    assert found["sample"]["bytes_per_image"] > 0
    pace, cost = found["sample"]["seconds_per_image"], found["cost"]
    assert 0 <= pace["low"] < pace["value"] < pace["high"]
    assert cost["hours"]["value"] == pytest.approx(pace["value"] * 18 / 3600 / 4)
    assert cost["gpu_hours"]["value"] == pytest.approx(4 * cost["hours"]["value"])
    assert cost["money"]["high"] == pytest.approx(2.5 * cost["gpu_hours"]["high"])
    assert cost["reader_cores"].keys() == {"exact", "fast"}
    for mode, cores in cost["reader_cores"].items():
        parts = found["sample"]["reader"][mode]
        assert min(parts.values()) > 0
        assert cores == pytest.approx(sum(parts.values()) / 1000 * 4 / pace["value"])
    assert not list(shards.glob("[!0-9]*"))  # nothing is written


def a_cost(*, reader_cores: float, driver_cores: float) -> plan._Cost:
    some = Estimate(value=1.0, low=1.0, high=1.0)
    of_modes = {"exact": reader_cores, "fast": reader_cores / 2}
    return plan._Cost(
        actors=8,
        hours=some,
        gpu_hours=some,
        money=None,
        decode="exact",
        reader_cores=of_modes,
        driver_cores=driver_cores,
    )


def test_a_plan_says_what_limits_the_job_and_what_to_change() -> None:
    assert "readers have 4 CPUs beside them" in plan._limit(
        a_cost(reader_cores=3.1, driver_cores=0.12)
    )
    full = a_cost(reader_cores=3.1, driver_cores=1.7)
    assert "1.7 cores where each driver can use one; --drivers 4" in plan._limit(full)
    assert "42% busy" in plan._limit(replace(full, drivers=4))


@pytest.fixture
def long_tar(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "long.tar").write_bytes(tar(pictures(40)))
    return tmp_path / "in"


def previewed(folder: Path, *options: str) -> list[dict[str, Any]]:
    """The cards of the page, with the number of images beside each."""
    page = folder.parent / "sheet.html"
    arguments = [str(folder), "--sample", "8", "--preview", str(page), *options]
    assert run_command(["plan", *arguments]) == 0
    (cards,) = re.findall(r'class="cards">(.*?)</script>', page.read_text())
    (images,) = re.findall(r'class="images">(.*?)</script>', page.read_text())
    assert all(image["image"] for image in json.loads(images))
    return json.loads(cards)


def test_a_preview_shows_images_chosen_at_random(long_tar: Path) -> None:
    one, other = (
        [card["index"] for card in previewed(long_tar, "--seed", seed)] for seed in ("1", "2")
    )
    assert len(set(one)) == len(set(other)) == 8
    assert one == sorted(one) != other
    assert one != list(range(8)) != other


def test_a_preview_shows_several_tasks_side_by_side(long_tar: Path) -> None:
    found = previewed(long_tar, "--task", "brief", "--task", "detailed")
    assert len(found) == 8
    for card in found:
        (beside,) = card["beside"]
        assert (card["title"], beside["title"]) == ("brief", "detailed")
        assert (card["index"], card["key"]) == (beside["index"], beside["key"])
    assert found == previewed(long_tar, "--task", "brief", "--task", "detailed")


def test_a_plan_reads_well(
    shards: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert run_command(["plan", str(shards)]) == 0
    page = capsys.readouterr().out
    assert "3 (3 tar)" in page
    assert "18, from 18 that were counted" in page
    assert "3 GET, at most 6 PUT" in page


def test_a_job_file_says_what_to_plan(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(f"input: {shards}\noutput: s3://bucket/out\nlimit: 2\n")
    assert planned(capsys, "--config", str(path))["shards"] == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--sample", "7"], "use at least 8"),
        (["--include", "*.x"], "nothing to read"),
        (["--preview", "sheet.html"], "add --sample 200"),
    ],
)
def test_what_cannot_be_planned_is_named(
    arguments: list[str], said: str, shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["plan", str(shards), *arguments]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_no_library_speaks_while_a_model_loads(
    shards: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Transformers would draw a bar."""
    enable_progress_bar()  # as in a process of its own
    assert run_command(["plan", str(shards), "--sample", "8", "--json"]) == 0
    printed = capfd.readouterr()
    assert json.loads(printed.out)["sample"]["images"] == 8
    assert printed.err == ""
