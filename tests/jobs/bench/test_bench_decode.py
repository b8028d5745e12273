"""`kosmos2 bench decode`, on one size and few scenes."""

import json

import pytest

from jobs.bench import decode
from jobs.bench.decode import bench_decode
from jobs.cli import run_command


def test_the_benchmark_prints_its_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(decode, "SIZES", [(1800, 1800)])
    assert run_command(["bench", "decode", "--scenes", "2", "--rounds", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["costs"][0]["fast_ms"] > 0
    assert found["agreement"]["scenes"] == 2


def test_fast_decoding_is_measured_and_its_boxes_are_counted() -> None:
    found = bench_decode(scenes=3, rounds=1, sizes=[(800, 600), (1800, 1800)])
    small, large = found.costs
    assert (small.mean_diff, small.max_diff) == (0, 0)  # is decoded exactly
    assert 0 < large.mean_diff < 1
    assert min(large.reference_ms, large.exact_ms, large.fast_ms) > 0
    seen = found.agreement
    assert 0 < seen.right_exact <= seen.objects
    assert seen.right_fast >= seen.right_exact - 1
    assert seen.same_captions >= 2
