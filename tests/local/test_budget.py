"""A budget of GPU hours, over several runs of the same command."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.bucket import Bucket
from tests.support.locally import LocalCommand, TablesOfGpus, without_ray
from tests.support.tars import pictures, tar

SHARDS = 3


@pytest.fixture(scope="module", autouse=True)
def gpus(surroundings: None) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        without_ray(patch, TablesOfGpus)
        yield


def status(bucket: Bucket, kosmos2: LocalCommand, *options: str) -> dict[str, Any]:
    found = json.loads(kosmos2.run("status", bucket.output, "--json", *options).stdout)
    assert isinstance(found, dict)
    return found


def test_a_budget_ends_runs_until_it_is_raised(bucket: Bucket, kosmos2: LocalCommand) -> None:
    for shard in range(SHARDS):
        bucket.put(f"shards/{shard}.tar", tar(pictures(4)))
    budget = ("--gpu-hour-cost", "3600", "--max-cost")  # one a second

    first = kosmos2.run("annotate", bucket.input, bucket.output, *budget, "0.001")
    assert first.returncode == 7, first.stderr
    assert "stopped by --max-cost 0.001: GPUs cost " in first.stderr
    assert "run the same command with a higher limit to resume" in first.stderr
    before = status(bucket, kosmos2)
    assert before["shards_left"] > 0
    assert before["costs"]["cost"] > 0.001  # the price is in job.json

    again = kosmos2.run("annotate", bucket.input, bucket.output, *budget, "0.001")
    assert again.returncode == 7
    assert "this run annotated 0 images" in again.stderr
    assert status(bucket, kosmos2) == before  # no actor was started

    last = kosmos2.run("annotate", bucket.input, bucket.output, *budget, "1e6")
    assert last.returncode == 0, last.stderr
    after = status(bucket, kosmos2, "--gpu-hour-cost", "36")
    assert (after["totals"]["shards"], after["shards_left"]) == (SHARDS, 0)
    costs = after["costs"]
    assert costs["time"]["gpu_held_s"] > before["costs"]["time"]["gpu_held_s"]
    assert costs["cost"] == pytest.approx(costs["time"]["gpu_held_s"] / 100)
    assert costs["cost_left"]["value"] == 0
    assert costs["cost_per_1000_images"]["value"] > 0
    done = kosmos2.run("annotate", bucket.input, bucket.output, *budget, "0.001")
    assert done.returncode == 0  # all is there: nothing is left to pay for


def test_a_limit_of_cost_needs_a_price(bucket: Bucket, kosmos2: LocalCommand) -> None:
    for command in (["annotate", bucket.input], ["retry"]):
        refused = kosmos2.run(*command, bucket.output, "--max-cost", "1")
        assert refused.returncode == 2
        assert "add --gpu-hour-cost" in " ".join(refused.stderr.split())
