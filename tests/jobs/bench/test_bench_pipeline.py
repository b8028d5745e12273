"""The parts of `kosmos2 bench pipeline`; its figures are for benchmarks, not for tests."""

import json
import subprocess
import sys

import numpy as np
import psutil
import pytest

from jobs.bench.observers import CpuMeter
from jobs.bench.paced import MEAN_STEPS, PacedEngine, _lengths
from jobs.cli import run_command
from kosmos2_core.annotation import Annotation
from kosmos2_core.annotator import Annotator
from kosmos2_core.prompts.tasks import BRIEF
from kosmos2_core.shared_annotator import SharedAnnotator


def test_a_paced_model_says_something_valid_of_every_image() -> None:
    annotator = Annotator.from_pretrained("shapes", device="cpu")
    paced = SharedAnnotator(annotator, PacedEngine(annotator.checkpoint, image_cost_s=0))
    answers = paced.answer_pixels(np.zeros((50, 3, 224, 224), np.uint8), [BRIEF], [[{}]] * 50)
    assert len(answers) == 50
    for (annotation,) in answers:
        assert isinstance(annotation, Annotation)
        assert [entity.phrase for entity in annotation.entities] == ["a red square", "a cyan star"]
        assert annotation.issues == ()


def test_a_paced_engine_ends_with_its_requests() -> None:
    annotator = Annotator.from_pretrained("shapes", device="cpu")
    assert list(PacedEngine(annotator.checkpoint, image_cost_s=0).generate([])) == []


def test_steps_are_as_many_as_said_on_average() -> None:
    period = 2 * MEAN_STEPS - 1
    steps = [1 + length for length, _ in zip(_lengths(), range(period), strict=False)]
    assert sorted(steps) == list(range(1, 2 * MEAN_STEPS))
    assert sum(steps) / period == MEAN_STEPS


def cpu_s(process: psutil.Process) -> float:
    return sum(process.cpu_times()[:2])


def test_the_meter_sees_what_a_child_spends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.bench.observers._CPU_EVERY_S", 0)
    siblings = psutil.Process().children(recursive=True)  # of other tests, such as a server
    before = sum(map(cpu_s, siblings))
    meter = CpuMeter()
    child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        while meter.spent_s.get("Ray itself", 0) < 0.1:  # of its own: it began after the meter
            meter.look()
        others = sum(map(cpu_s, siblings)) - before
        assert round(cpu_s(psutil.Process(child.pid)) + others, 6) >= 0.1
    finally:
        child.kill()
        child.wait()


def test_a_cluster_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert run_command(["bench", "pipeline"]) == 2
    assert "unset RAY_ADDRESS" in capsys.readouterr().err


@pytest.mark.slow
def test_the_benchmark_prints_its_figures() -> None:
    arguments = ["bench", "pipeline", "--shards", "3", "--images", "40", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "jobs.cli", *arguments],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert 0 < found["engine_busy"] <= 1
    assert found["cpu_ms_per_image"] > 0
    assert [run["image_cost_ms"] for run in found["runs"]] == [10, 2]
    assert found["images"] == 120
