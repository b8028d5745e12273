"""Rows of one shard, gathered until they are complete."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.driver.assembly import Assembly
from pipeline.parquet import parquet_bytes
from pipeline.schema import ANNOTATION, REJECTION
from tests.support.tars import a_shard, annotated_row, annotated_table, end_row, rejected_row

TASKS = ("detailed", "brief")  # not in the order of the alphabet
SHARD = a_shard()
END = end_row(SHARD, 2)


def rows(samples: int = 2) -> list[dict[str, Any]]:
    """Every third sample is rejected."""
    return [
        (rejected_row if index % 3 == 2 else annotated_row)(SHARD, index, task)
        for index in range(samples)
        for task in TASKS
    ]


def assembly(*batches: list[dict[str, Any]]) -> Assembly:
    found = Assembly(shard=SHARD, tasks=TASKS)
    for batch in batches:
        found.add(annotated_table(batch))
    return found


@pytest.mark.parametrize(
    ("batch", "is_complete"),
    [
        pytest.param([*rows(), END], True, id="all"),
        pytest.param([END, *rows()], True, id="the end first"),
        pytest.param([end_row(SHARD, 0)], True, id="an empty shard"),
        pytest.param([], False, id="nothing"),
        pytest.param(rows(), False, id="no end"),
        pytest.param([*rows()[1:], END], False, id="a task is missing"),
        pytest.param([*rows(1), END], False, id="a sample is missing"),
        pytest.param([*rows(1), *rows(1), END], False, id="a sample is missing, another twice"),
        pytest.param(
            [*rows(1), *[annotated_row(SHARD, 2, task) for task in TASKS], END],
            False,
            id="as many, but not those",
        ),
        pytest.param(
            [*rows(1), annotated_row(SHARD, 1, "brief"), annotated_row(SHARD, 1, "x"), END],
            False,
            id="as many, but of another task",
        ),
        pytest.param([*rows(3), END], False, id="more than there are"),
        pytest.param(
            [*rows(), end_row(SHARD, 2, error_type="input_changed")], False, id="a bad end"
        ),
    ],
)
def test_complete_is_every_sample_for_every_task(
    batch: list[dict[str, Any]], is_complete: bool
) -> None:
    assert assembly(batch).is_complete == is_complete


def test_rows_that_are_sent_again_count_once() -> None:
    found = Assembly(shard=SHARD, tasks=TASKS)
    counts = [found.add(annotated_table(batch)) for batch in (rows()[:3], rows(), rows(), [END])]
    assert counts == [3, 1, 0, 0]
    assert found.is_complete
    assert found.rows().annotated.num_rows == 4


def test_the_first_of_two_answers_counts() -> None:
    found = assembly([rejected_row(SHARD, 0, "brief")], [annotated_row(SHARD, 0, "brief")])
    assert (found.rows().rejected.num_rows, found.rows().annotated.num_rows) == (1, 0)


def test_rejected_samples_are_counted_whatever_their_tasks() -> None:
    batch = [
        rejected_row(SHARD, 0, "brief", "no_image"),
        rejected_row(SHARD, 0, "detailed", "no_image"),
        rejected_row(SHARD, 4, "brief", "empty_image"),
    ]
    found = assembly(batch)
    assert found.rejected_samples() == 2
    assert found.top_reasons(1) == [("no_image", 2)]


def test_tables_are_sorted_by_index_then_task_in_the_order_of_the_job() -> None:
    found = assembly(list(reversed(rows(6))), [end_row(SHARD, 6)])
    keys = list(
        zip(*[found.rows().annotated[name].to_pylist() for name in ("index", "task")], strict=True)
    )
    assert keys == [(index, task) for index in (0, 1, 3, 4) for task in TASKS]
    assert found.rows().annotated.schema.equals(ANNOTATION)
    assert found.rows().rejected.schema.equals(REJECTION)


ALL = [*rows(9), end_row(SHARD, 9)]
EXPECTED = [
    parquet_bytes(table)
    for table in (assembly(ALL).rows().annotated, assembly(ALL).rows().rejected)
]


@settings(derandomize=True, max_examples=60, deadline=None, database=None)
@given(st.permutations(ALL), st.lists(st.integers(0, len(ALL))), st.lists(st.sampled_from(ALL)))
def test_files_are_the_same_bytes_however_the_rows_came(
    order: list[dict[str, Any]], cuts: list[int], again: list[dict[str, Any]]
) -> None:
    bounds = [0, *sorted(cuts), len(order)]
    whole = annotated_table(order)
    found = Assembly(shard=SHARD, tasks=TASKS)
    for start, end in pairwise(bounds):
        found.add(whole.slice(start, end - start))
    found.add(annotated_table(again))
    assert found.is_complete
    assert [
        parquet_bytes(table) for table in (found.rows().annotated, found.rows().rejected)
    ] == EXPECTED
