"""The job of tests whose tables come from `tests.support.passes`."""

from pathlib import Path

import pytest

from pipeline.spec.job import JobSpec


@pytest.fixture
def spec(tmp_path: Path) -> JobSpec:
    (tmp_path / "in").mkdir()
    return JobSpec(input=str(tmp_path / "in"), output=str(tmp_path / "out"), max_reject_rate=1)
