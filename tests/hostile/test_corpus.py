"""Hundreds of hostile inputs through the reader: each ends as it must, and nothing else happens.

An input is its seed and number: `corpus.case(seed, number)` makes it again.
"""

import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kosmos2_core import errors
from tests.hostile.corpus import Case, bombs, case
from tests.hostile.pictures import files
from tests.hostile.reader import TASKS, read_in_a_process
from tests.support.tars import pictures, tar

SEED = int(os.environ.get("HOSTILE_SEED", "1"))
CASES = int(os.environ.get("HOSTILE_CASES", "500"))
# The largest picture that we decode needs the most: 1.5 GiB, more than all the archives may.
MAX_GROWTH_MIB = 1600

IMAGE_REASONS = {kind.code for kind in errors.ImageError.__subclasses__()}
SAMPLE_REASONS = {"no_image", "duplicate_key", "member_too_large", "name_too_long"}
KNOWN_REASONS = {*IMAGE_REASONS, *SAMPLE_REASONS, "linked_member"}  # that one in few tars
ARCHIVE_REASONS = {"truncated_archive", "corrupt_archive", "trailing_data", "archive_too_large"}

pytestmark = pytest.mark.timeout(1800)  # half a minute, on a machine that has nothing else to do


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    cases: list[Case]
    found: list[dict[str, Any]]
    grown_mib: int
    touched: list[str]
    left: list[Path]  # files that were not there before
    returncode: int
    stderr: str


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    print(f"HOSTILE_SEED={SEED} HOSTILE_CASES={CASES}")
    root = tmp_path_factory.mktemp("hostile")
    inputs, warm_up, surroundings = root / "in", root / "warm-up", root / "around"
    for folder in (inputs, warm_up, surroundings):
        folder.mkdir(parents=True)
    heic = ("heic.jpg", files()["plain.heic"])  # its decoder is imported when there is one
    (warm_up / "a.tar").write_bytes(tar([*pictures(3), heic]))
    cases = [case(SEED, number) for number in range(CASES)]
    for number, one in enumerate(cases):
        (inputs / f"{number:05d}.tar").write_bytes(one.data)
    (surroundings / "a" / "b").mkdir(parents=True)
    before = set(root.rglob("*"))
    done = read_in_a_process(inputs, warm_up, surroundings)
    *found, last = [json.loads(line) for line in done.stdout.splitlines()] or [{}]
    return Outcome(
        cases=cases,
        found=found,
        grown_mib=last.get("grown_mib", -1),
        touched=last.get("touched", []),
        left=sorted(set(root.rglob("*")) - before),
        returncode=done.returncode,
        stderr=done.stderr,
    )


def problems(one: Case, found: dict[str, Any]) -> list[str]:
    """How an input did not end as it must."""
    rejected = found["rejected"]
    reasons = {reason for _, _, reason in rejected}
    keys = Counter((index, task) for index, _ in found["samples"] for task in TASKS)
    keys += Counter((index, task) for index, task, _ in rejected)
    [end] = found["ends"]
    expected = Counter((index, task) for index in range(end["samples"]) for task in TASKS)
    rules = {
        "every sample once for each task": keys == expected,
        "the shard was read": end["error_type"] is None,
        "reasons are known": reasons <= KNOWN_REASONS | ARCHIVE_REASONS,
        "a broken archive says so": end["truncated"] == bool(reasons & ARCHIVE_REASONS),
        "its neighbours live": one.survivors <= {key for _, key in found["samples"]},
        f"rejected as {one.rejections}": one.rejections in (None, reasons),
    }
    return [rule for rule, holds in rules.items() if not holds]


def test_every_input_is_read_and_the_process_lives(outcome: Outcome) -> None:
    number = len(outcome.found)
    assert outcome.returncode == 0, f"died at seed {SEED}, number {number}:\n{outcome.stderr}"
    assert number == CASES >= 500


def test_every_sample_is_accounted_for(outcome: Outcome) -> None:
    wrong = {
        f"seed {SEED}, number {number} ({one.name})": (broken, found)
        for number, (one, found) in enumerate(zip(outcome.cases, outcome.found, strict=True))
        if (broken := problems(one, found))
    }
    assert not wrong


def test_memory_stays_bounded(outcome: Outcome) -> None:
    print(f"{outcome.grown_mib} MiB at most for {CASES} hostile inputs")
    assert 0 <= outcome.grown_mib < MAX_GROWTH_MIB


def test_nothing_is_written_and_nobody_called(outcome: Outcome) -> None:
    assert outcome.touched == []
    assert outcome.left == []


def test_the_corpus_is_varied(outcome: Outcome) -> None:
    reasons = Counter(reason for found in outcome.found for *_, reason in found["rejected"])
    print(dict(reasons))
    assert set(reasons) >= IMAGE_REASONS | ARCHIVE_REASONS | SAMPLE_REASONS
    assert sum(bool(found["samples"]) for found in outcome.found) > CASES // 2
    assert len({one.data for one in outcome.cases}) > CASES * 0.8


def test_an_input_is_made_again_from_its_number() -> None:
    numbers = [0, len(bombs()) - 1, 100, 101, 102]
    assert [case(SEED, n) for n in numbers] == [case(SEED, n) for n in numbers]
    assert case(SEED, 100).data != case(SEED + 1, 100).data
