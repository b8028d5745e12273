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
from tests.hostile import tables
from tests.hostile.corpus import Case, bombs, case
from tests.hostile.pictures import files
from tests.hostile.reader import TASKS, read_in_a_process
from tests.support.tars import pictures, tar

SEED = int(os.environ.get("HOSTILE_SEED", "1"))
CASES = int(os.environ.get("HOSTILE_CASES", "250"))
TABLES = int(os.environ.get("HOSTILE_TABLES", "60"))
# The largest picture that we decode needs the most: 1.5 GiB, more than all the archives may.
MAX_GROWTH_MIB = 1600
MAX_GROWTH_OF_TABLES_MIB = 500  # a value many times, in two files, would come to 600 in each

IMAGE_REASONS = {kind.code for kind in errors.ImageError.__subclasses__()}
SAMPLE_REASONS = {"no_image", "duplicate_key", "member_too_large", "name_too_long"}
KNOWN_REASONS = {*IMAGE_REASONS, *SAMPLE_REASONS, "linked_member"}  # that one in few tars
ARCHIVE_REASONS = {"truncated_archive", "corrupt_archive", "trailing_data", "archive_too_large"}

pytestmark = pytest.mark.timeout(1800)  # half a minute, on a machine that has nothing else to do


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    cases: list[Case]
    found: list[dict[str, Any]]  # of each case
    tables: dict[str, dict[str, Any]]  # by name
    touched: list[str]
    left: list[Path]  # files that were not there before


@pytest.fixture(scope="module", params=[1, pytest.param(5, marks=pytest.mark.slow)])
def outcome(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    print(f"HOSTILE_SEED={SEED} HOSTILE_CASES={CASES} HOSTILE_TABLES={TABLES} x {request.param}")
    root = tmp_path_factory.mktemp("hostile")
    of_tables, archives, warm_up, surroundings = (
        root / name for name in ("tables", "archives", "warm-up", "around")
    )
    for folder in (of_tables, archives, warm_up, surroundings / "a" / "b"):
        folder.mkdir(parents=True)
    heic = ("heic.jpg", files()["plain.heic"])  # its decoder is imported when there is one
    (warm_up / "a.tar").write_bytes(tar([*pictures(3), heic]))
    for name, data in tables.sound():
        (warm_up / name).write_bytes(data)
    for name, data in tables.files(SEED, TABLES * request.param):
        (of_tables / name).write_bytes(data)
    cases = [case(SEED, number) for number in range(CASES * request.param)]
    for number, one in enumerate(cases):
        (archives / f"{number:05d}.tar").write_bytes(one.data)
    names = [path.name for folder in (of_tables, archives) for path in sorted(folder.iterdir())]
    before = set(root.rglob("*"))
    done = read_in_a_process(warm_up, [of_tables, archives], surroundings)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    died = names[len(lines)] if len(lines) < len(names) else "the end"
    assert done.returncode == 0, f"died at seed {SEED}, {died}:\n{done.stderr}"
    *each, touched = lines
    found = dict(zip(names, each, strict=True))
    of_cases = [found.pop(f"{number:05d}.tar") for number in range(len(cases))]
    return Outcome(
        cases=cases,
        found=of_cases,
        tables=found,
        touched=touched,
        left=sorted(set(root.rglob("*")) - before),
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


def test_every_sample_is_accounted_for(outcome: Outcome) -> None:
    wrong = {
        f"seed {SEED}, number {number} ({one.name})": (broken, found)
        for number, (one, found) in enumerate(zip(outcome.cases, outcome.found, strict=True))
        if (broken := problems(one, found))
    }
    assert not wrong


def test_memory_stays_bounded(outcome: Outcome) -> None:
    of_tables, of_all = (
        max(one["grown_mib"] for one in found) for found in (outcome.tables.values(), outcome.found)
    )
    print(f"{of_tables} MiB at most for {len(outcome.tables)} hostile tables")
    print(f"{of_all} MiB at most with {len(outcome.found)} other hostile inputs")
    assert 0 <= of_tables < MAX_GROWTH_OF_TABLES_MIB
    assert of_all < MAX_GROWTH_MIB


def test_nothing_is_written_and_nobody_called(outcome: Outcome) -> None:
    assert outcome.touched == []
    assert outcome.left == []


def test_the_corpus_is_varied(outcome: Outcome) -> None:
    reasons = Counter(reason for found in outcome.found for *_, reason in found["rejected"])
    print(dict(reasons))
    assert set(reasons) >= IMAGE_REASONS | ARCHIVE_REASONS | SAMPLE_REASONS
    assert sum(bool(found["samples"]) for found in outcome.found) > len(outcome.found) // 2
    assert len({one.data for one in outcome.cases}) > len(outcome.cases) * 0.8


def test_an_input_is_made_again_from_its_number() -> None:
    numbers = [0, len(bombs()) - 1, 100, 101, 102]
    assert [case(SEED, n) for n in numbers] == [case(SEED, n) for n in numbers]
    assert case(SEED, 100).data != case(SEED + 1, 100).data


# Parquet and Arrow


def test_every_sample_of_a_table_is_accounted_for(outcome: Outcome) -> None:
    for name, one in outcome.tables.items():
        [end] = one["ends"]
        keys = Counter((index, task) for index, _ in one["samples"] for task in TASKS)
        keys += Counter((index, task) for index, task, _ in one["rejected"])
        assert keys == Counter((i, task) for i in range(end["samples"]) for task in TASKS), name
        assert end["error_type"] in (None, "input_unreadable"), name
        assert end["truncated"] == any(r == "corrupt_stream" for *_, r in one["rejected"]), name


@pytest.mark.parametrize("name", tables.BOMBS)
def test_each_bomb_has_the_end_that_is_right(outcome: Outcome, name: str) -> None:
    bomb, found = tables.BOMBS[name], outcome.tables[name]
    assert {reason for *_, reason in found["rejected"]} == bomb.reasons
    assert found["ends"][0]["error_type"] == bomb.error_type


def test_spoilt_ones_keep_what_can_be_read(outcome: Outcome) -> None:
    spoilt = [one for name, one in outcome.tables.items() if name[0].isdigit()]
    reasons = Counter(reason for one in spoilt for *_, reason in one["rejected"])
    print(dict(reasons), sum(len(one["samples"]) for one in spoilt), "samples")
    assert set(reasons) >= {"corrupt_row_group", "corrupt_stream"}
    assert any(one["samples"] and one["rejected"] for one in spoilt)
