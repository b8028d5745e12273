"""The parts of `kosmos2 bench pipeline`; its figures are for benchmarks, not for tests."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from jobs.bench import paced
from jobs.bench.observers import CpuMeter
from jobs.bench.paced import MEAN_STEPS, PacedDevice, PacedEngine, _lengths
from jobs.cli import run_command
from kosmos2_core.annotation import Annotation
from kosmos2_core.annotator import Annotator
from kosmos2_core.engine.requests import Prompt, Request
from kosmos2_core.engine.shared_engine import Usage
from kosmos2_core.prompts.tasks import BRIEF
from kosmos2_core.shared_annotator import SharedAnnotator


def test_a_paced_model_says_something_valid_of_every_image() -> None:
    annotator = Annotator.from_pretrained("shapes", device="cpu")
    shared = SharedAnnotator(annotator, PacedEngine(annotator.checkpoint, image_cost_s=0))
    answers = shared.answer_pixels(np.zeros((50, 3, 224, 224), np.uint8), [BRIEF], [[{}]] * 50)
    assert len(answers) == 50
    for (annotation,) in answers:
        assert isinstance(annotation, Annotation)
        assert [entity.phrase for entity in annotation.entities] == ["a red square", "a cyan star"]
        assert annotation.issues == ()


def test_a_paced_engine_ends_with_its_requests() -> None:
    annotator = Annotator.from_pretrained("shapes", device="cpu")
    assert list(PacedEngine(annotator.checkpoint, image_cost_s=0).generate([])) == []


def test_a_device_is_busy_for_what_was_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=100.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(paced, "time", clock)
    device = PacedDevice()
    assert device.usage == Usage()
    assert [device.launch(2.0), device.launch(2.0)] == [102.0, 104.0]
    clock.now = 103.0
    assert device.usage == Usage(busy_s=3.0, span_s=3.0)
    clock.now = 108.0
    assert device.usage == Usage(busy_s=4.0, span_s=8.0)  # the host was late


def test_a_step_is_launched_before_the_last_one_is_read() -> None:
    events: list[str] = []

    class Device(PacedDevice):
        def launch(self, seconds: float) -> float:
            events.append("launch")
            return super().launch(seconds)

    annotator = Annotator.from_pretrained("shapes", device="cpu")
    engine = PacedEngine(annotator.checkpoint, image_cost_s=0, slots=2)
    engine.device = Device()
    prompt = Prompt(task="brief", ids=(0,) * 70, max_new_tokens=60)
    pixels = np.zeros((3, 224, 224), np.uint8)
    requests = [Request(id=i, pixels=pixels, prompts=(prompt,)) for i in range(2)]
    for completion in engine.generate(requests):  # of one step and of eight
        events.append(f"answer {completion.request_id}")
    assert events == [*["launch"] * 2, "answer 0", *["launch"] * 6, "answer 1"]


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


@pytest.mark.parametrize("wrong", [("--slots", "0"), ("--image-ms", "0"), ("--shards", "1")])
def test_a_pace_that_cannot_be_is_refused(
    wrong: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["bench", "pipeline", *wrong]) == 2
    assert "at least" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("images", "more", "costs_ms"),
    [(40, (), [10, 2]), (1000, ("--pre-decoded", "--slots", "64", "--image-ms", "1"), [1])],
    ids=["decoded", "pre-decoded"],
)
def test_the_benchmark_prints_its_figures(
    images: int, more: tuple[str, ...], costs_ms: list[int]
) -> None:
    arguments = ["bench", "pipeline", "--shards", "3", "--images", str(images), *more, "--json"]
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
    assert [run["image_cost_ms"] for run in found["runs"]] == costs_ms
    assert {"actor", "driver"} <= found["runs"][0]["cores"].keys()
    assert found["images"] == 3 * images
