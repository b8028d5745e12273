"""The arithmetic of docs/scale.md: its table follows from its formulas and constants."""

import math
import re

import pytest

from pipeline.costs.drivers import PACE_ON_A_GPU
from tests.support.deployment import ROOT

PAGE = (ROOT / "docs" / "scale.md").read_text()
BLOCK_BYTES = 8 << 20
PIXEL_BYTES = 3 * 224 * 224


def number(text: str) -> float:
    found = re.match(r"[\d,.]+", text)
    assert found, text
    return float(found[0].replace(",", ""))


def constant(symbol: str) -> float:
    [value] = re.findall(rf"^\| {symbol} \|[^|]*\| ([^|]*) \|", PAGE, flags=re.M)
    return number(value) * {"ms": 1e-3, "kB": 1e3}.get(value.split()[-1], 1)


ROWS = [
    [number(cell) for cell in row.strip("| ").split(" | ")]
    for row in re.findall(r"^\| (?:8|64|256) \|.*$", PAGE, flags=re.M)
]


def test_each_number_of_gpus_has_a_row() -> None:
    assert [int(row[0]) for row in ROWS] == [8, 64, 256]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]:.0f} GPUs")
def test_a_row_follows_from_the_constants(row: list[float]) -> None:
    p, r, d, size, shard, slots, rows = map(constant, "prdBSst")
    pace = row[0] * p
    expected = [
        row[0],
        pace,
        pace * r,
        pace * d,
        PACE_ON_A_GPU.drivers(int(row[0])),
        pace * size / 1e9,
        pace * PIXEL_BYTES / 1e9,
        pace * size / BLOCK_BYTES,
        pace,
        pace / shard,
        row[0] * 2 * (1 + math.ceil(2 * slots / rows)) * rows * PIXEL_BYTES / 1e9,
    ]
    for found, exact in zip(row, expected, strict=True):
        assert found == pytest.approx(exact, rel=0.1) or abs(found - exact) <= 1
