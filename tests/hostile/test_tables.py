"""Hostile Parquet and Arrow through the reader, in a process that is watched.

An input is its seed and number, as in `test_corpus`.
"""

import json
import os
from collections import Counter
from typing import Any

import numpy as np
import pytest

from tests.hostile import tables
from tests.hostile.reader import TASKS, read_in_a_process

SEED = int(os.environ.get("HOSTILE_SEED", "1"))
CASES = int(os.environ.get("HOSTILE_TABLES", "60"))
MAX_GROWTH_MIB = 500  # a value many times, in two files, would come to 600 in each

SAMPLE_REASONS = {"no_image", "corrupt_row", "corrupt_row_group", "corrupt_stream"}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    print(f"HOSTILE_SEED={SEED} HOSTILE_TABLES={CASES}")
    root = tmp_path_factory.mktemp("tables")
    inputs, warm_up = root / "in", root / "warm-up"
    for folder in (inputs, warm_up):
        folder.mkdir()
    for extension in ("parquet", "arrow"):
        write = getattr(tables, extension)
        (warm_up / f"a.{extension}").write_bytes(write(tables._table()))
    names = []
    for name, bomb in tables.BOMBS.items():
        (inputs / name).write_bytes(bomb.make())
        names.append(name)
    for number in range(CASES):
        extension, data = tables.spoilt(np.random.default_rng([SEED, number]))
        (inputs / f"{number:05d}.{extension}").write_bytes(data)
        names.append(f"{number:05d}.{extension}")
    done = read_in_a_process(inputs, warm_up, root / "around")
    *each, last = [json.loads(line) for line in done.stdout.splitlines()] or [{}]
    died = sorted(names)[len(each)] if len(each) < len(names) else ""
    assert done.returncode == 0, f"died at seed {SEED}, {died}:\n{done.stderr}"
    return {**dict(zip(sorted(names), each, strict=True)), "process": last}


def test_every_sample_is_accounted_for(found: dict[str, dict[str, Any]]) -> None:
    for name in found.keys() - {"process"}:
        one = found[name]
        [end] = one["ends"]
        keys = Counter((index, task) for index, _ in one["samples"] for task in TASKS)
        keys += Counter((index, task) for index, task, _ in one["rejected"])
        assert keys == Counter((i, task) for i in range(end["samples"]) for task in TASKS), name
        assert end["error_type"] in (None, "input_unreadable"), name
        assert end["truncated"] == any(r == "corrupt_stream" for *_, r in one["rejected"]), name


@pytest.mark.parametrize("name", tables.BOMBS)
def test_each_bomb_has_the_end_that_is_right(found: dict[str, dict[str, Any]], name: str) -> None:
    bomb = tables.BOMBS[name]
    assert {reason for *_, reason in found[name]["rejected"]} == bomb.reasons
    assert found[name]["ends"][0]["error_type"] == bomb.error_type


def test_spoilt_ones_keep_what_can_be_read(found: dict[str, dict[str, Any]]) -> None:
    spoilt = [one for name, one in found.items() if name[0].isdigit()]
    reasons = Counter(reason for one in spoilt for *_, reason in one["rejected"])
    print(dict(reasons), sum(len(one["samples"]) for one in spoilt), "samples")
    assert set(reasons) >= {"corrupt_row_group", "corrupt_stream"}
    assert any(one["samples"] and one["rejected"] for one in spoilt)


def test_memory_stays_bounded_and_nothing_is_touched(found: dict[str, dict[str, Any]]) -> None:
    print(found["process"]["grown_mib"], "MiB at most")
    assert 0 <= found["process"]["grown_mib"] < MAX_GROWTH_MIB
    assert found["process"]["touched"] == []
