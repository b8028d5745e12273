"""What a run that stands still waits for, in words."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.driver import watchdog
from pipeline.driver.watchdog import cause_of_stall
from pipeline.execution.resources import ActorResources, ClusterLoad
from pipeline.faults import arm
from pipeline.spec.job import JobSpec
from pipeline.storage import open_output, s3
from tests.support.proxy import running_proxy
from tests.support.s3 import S3Server

BUSY = ClusterLoad(cpus=4, free_cpus=0, gpus=0, free_gpus=0, actors=2)
IDLE = replace(BUSY, free_cpus=4, actors=0)
ON_CPU = ActorResources(num_cpus=1, num_gpus=0)
ON_GPU = ActorResources(num_cpus=1, num_gpus=1)
FORBIDDEN = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def cause(
    folder: Path,
    load: ClusterLoad,
    resources: ActorResources = ON_CPU,
    *,
    has_rows: bool = False,
    reader_label: tuple[str, ...] = (),
) -> str:
    spec = JobSpec(input=str(folder), output=str(folder / "out"), reader_label=reader_label)
    store = open_output(spec.output)
    return cause_of_stall(store, spec, load, resources, has_rows=has_rows)


@pytest.mark.parametrize(
    ("load", "resources", "said"),
    [
        (replace(BUSY, actors=0), ON_CPU, "no actor could start: each needs 1 CPUs and 0 GPUs"),
        (IDLE, ON_GPU, "4 of 4 CPUs and 0 of 0 GPUs are free"),
        (IDLE, ON_CPU, "no actor has loaded its model yet, although the resources"),
        (
            replace(BUSY, actors=0, starting=2),
            ON_CPU,
            "no actor has loaded its model yet, although 2 actors are",
        ),
        (BUSY, ON_CPU, "no CPU is free for readers: 2 actors of this run"),
        (replace(BUSY, free_cpus=1), ON_CPU, "a reader or an actor hangs"),
    ],
)
def test_it_names_what_is_missing(
    tmp_path: Path, load: ClusterLoad, resources: ActorResources, said: str
) -> None:
    assert said in cause(tmp_path, load, resources)


def test_it_names_the_nodes_that_are_wanted(tmp_path: Path) -> None:
    on_some = replace(ON_GPU, accelerator_type="A100", labels={"pool": "gpu"})
    assert "1 GPUs on a node with A100, pool=gpu" in cause(tmp_path, IDLE, on_some)
    said = cause(tmp_path, replace(BUSY, free_cpus=4), reader_label=("pool=cpu",))
    assert "no reader could start: readers need a CPU on a node with pool=cpu" in said


def test_readers_that_gave_rows_have_their_cpus(tmp_path: Path) -> None:
    assert "a reader or an actor hangs" in cause(tmp_path, BUSY, has_rows=True)


def test_it_names_a_store_that_refuses(tmp_path: Path) -> None:
    arm("local_store.written=raise:builtins.OSError")
    assert "the store gives no valid answer" in cause(tmp_path, BUSY)
    arm("")


@pytest.mark.parametrize(
    ("trouble", "cause"),
    [
        ({"slow_downs": 99}, "the store did not answer within 1 s"),
        ({"refuse_puts": FORBIDDEN}, "the store gives no valid answer (s3://"),
    ],
)
def test_it_names_a_store_that_is_silent(
    s3_server: S3Server,
    s3_bucket: str,
    monkeypatch: pytest.MonkeyPatch,
    trouble: dict[str, Any],
    cause: str,
) -> None:
    if "slow_downs" in trouble:
        monkeypatch.setattr(watchdog, "_ANSWER_S", 1.0)
    monkeypatch.setattr(s3, "REQUEST_ATTEMPTS", 1)  # so that its thread ends soon
    with running_proxy(s3_server.endpoint_url, **trouble) as busy:
        spec = JobSpec(
            input=f"s3://{s3_bucket}/in",
            output=f"s3://{s3_bucket}/out",
            output_endpoint_url=busy.endpoint_url,
        )
        store = open_output(spec.output, spec.output_storage)
        said = cause_of_stall(store, spec, BUSY, ON_CPU, has_rows=True)
    assert said.startswith(cause)
