"""The size of the real model: it fits where it should, and its needs are estimated well."""

import json
import subprocess
import sys

import pytest

from tests.support.full_size import IMAGES, TASKS

GB = 10**9


def child(step, directory):
    command = [sys.executable, "-m", "tests.support.full_size", step, str(directory)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_model_of_the_full_size_runs_in_8_gb(tmp_path):
    child("build", tmp_path)
    took = json.loads(child("run", tmp_path).splitlines()[-1])
    print(took)
    assert took["peak"] < 8 * GB
    assert 0.8 < took["needs"] / took["taken"] < 1.4
    assert len(took["said"]) == IMAGES
    assert all(
        1 <= length <= task.max_new_tokens
        for row in took["said"]
        for length, task in zip(row, TASKS, strict=True)
    )
