"""`kosmos2 bench decode`, on small sizes and few scenes."""

import json
from types import SimpleNamespace

import pytest

from jobs.bench import decode
from jobs.cli import run_command


def test_fast_decoding_is_measured_and_its_boxes_are_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(decode, "SIZES", [(800, 600), (1800, 1800)])
    monkeypatch.setattr(decode, "_SCENE", (1200, 900))
    assert run_command(["bench", "decode", "--scenes", "3", "--rounds", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    small, large = (SimpleNamespace(**cost) for cost in found["costs"])
    assert (small.mean_diff, small.max_diff) == (0, 0)  # is decoded exactly
    assert 0 < large.mean_diff < 1
    assert min(large.reference_ms, large.exact_ms, large.fast_ms) > 0
    seen = SimpleNamespace(**found["agreement"])
    assert seen.scenes == 3
    assert 0 < seen.right_exact <= seen.objects
    assert seen.right_fast >= seen.right_exact - 1
    assert seen.same_captions >= 2
