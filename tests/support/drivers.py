"""Processes of their own, each with its faults, and without Ray: drivers that may die, commands."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import s3fs  # noqa: F401 - forked processes need it

from jobs.cli import main
from jobs.commands import annotate  # noqa: F401 - as above
from pipeline.dataset.commit import Committed
from pipeline.dataset.dataset import settle_record
from pipeline.driver.committer import Committer
from pipeline.driver.finishing import ShardOutcome
from pipeline.driver.run import run
from pipeline.faults import arm
from pipeline.plan.planning import settle_plan
from pipeline.spec.job import JobSpec
from pipeline.storage import OutputStore, open_output
from tests.support.committing import A, committer, outcomes, shard_table
from tests.support.patience import patient
from tests.support.s3 import S3Server
from tests.support.tars import MODEL

# Forked from a server that has imported all of this once, and parsed what a client of S3 needs.
S3Server(endpoint_url="http://localhost").client()
_processes = get_context("forkserver")
_processes.set_forkserver_preload([__name__])


def start(
    work: Callable[..., object],
    *arguments: object,
    faults: str = "",
    environment: Mapping[str, str] | None = None,
) -> BaseProcess:
    """A process that does `work`; its exit code is what that returns."""
    process = _processes.Process(
        target=_work,
        args=({**os.environ, **(environment or {})}, faults, work, arguments),
        daemon=True,
    )
    process.start()
    return process


def exit_code(process: BaseProcess) -> int | None:
    process.join(timeout=patient(120))
    return process.exitcode


def _work(
    environment: Mapping[str, str],
    faults: str,
    work: Callable[..., object],
    arguments: tuple[object, ...],
) -> None:
    os.environ.update(environment)
    arm(faults)
    raise SystemExit(work(*arguments))


def kosmos2(
    *arguments: str, folder: Path, encoding: str = "utf-8", **environment: str
) -> subprocess.CompletedProcess[str]:
    """The command as its script runs it; what it prints goes through files in that folder."""
    out, err = folder / "stdout", folder / "stderr"
    process = start(_main, arguments, (out, err), encoding, environment=environment)
    code = exit_code(process)
    assert code is not None, "it does not end"
    return subprocess.CompletedProcess(arguments, code, out.read_text(), err.read_text())


def _main(arguments: tuple[str, ...], files: tuple[Path, Path], encoding: str) -> None:
    for descriptor, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    sys.stdout, sys.stderr = (
        os.fdopen(number, "w", encoding=encoding, closefd=False) for number in (1, 2)
    )
    sys.argv = ["kosmos2", *arguments]
    main()


def commit(store: OutputStore, *, samples: int = 60) -> ShardOutcome:
    """All rows of shard A arrive, the first two of them rejections."""
    [outcome] = outcomes(committer(store), shard_table(A, samples, rejected=2))
    return outcome


def commit_at(output: str, samples: int) -> int:
    commit(open_output(output), samples=samples)
    return 0


def annotate_without_model(spec: JobSpec) -> int:
    """A driver's work but for Ray, 3 samples a shard; the number of shards that it committed."""
    store = open_output(spec.output)
    plan = settle_plan(store, spec)
    record = settle_record(store, spec, MODEL)
    one = Committer(store, record, plan.shards, max_reject_rate=1)
    for shard in plan.part(spec.partition):
        one.add(shard_table(shard, 3))
    return sum(isinstance(done, Committed) and done.is_ours for done in one.close())


def finish(spec: JobSpec) -> int:
    """A whole run that finds every shard committed, and so needs no Ray."""
    return run(spec).exit_code
