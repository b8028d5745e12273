"""The commands that look after a job that runs elsewhere."""

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pipeline.logs import LogFormat
from pipeline.spec.access import OutputAccess
from pipeline.spec.job import JobOptions

_ACCESS = Annotated[OutputAccess, Parameter(name="*")]
_OPTIONS = Annotated[JobOptions, Parameter(name="*")]
_WAIT = Annotated[bool, Parameter(negative="--detach")]


def plan(
    input: str | None = None,
    /,
    *,
    sample: int | None = None,
    gpu_hour_cost: float | None = None,
    json: bool = False,
    config: Path | None = None,
    options: _OPTIONS = JobOptions(),  # noqa: B008
) -> int:
    """Show what there is to annotate under INPUT, and what that takes. Writes nothing.

    ```
    kosmos2 plan s3://bucket/shards/ --sample 200 --actors 8 --gpu-hour-cost 2.50
    ```

    Images are counted in the first 8 MB of at most eight shards. With --sample some are annotated
    in this process: the time is that of actors like it, so ask on a machine like theirs.

    Parameters
    ----------
    input
        Directory, s3:// prefix or any fsspec URL: docs/inputs.md.
    sample
        Annotate so many images, and tell from them how long all take.
    gpu_hour_cost
        Price of one GPU for one hour, in whatever currency.
    json
        Print one JSON object instead of a table.
    config
        YAML file with options of the job and `input`; flags win over it.
    """
    from jobs.commands.plan import plan_and_report
    from jobs.options.job_file import job_spec

    nowhere = os.devnull if config is None else None  # nothing is written
    spec = job_spec(input, nowhere, options, config)
    return plan_and_report(spec, sample=sample, gpu_hour_cost=gpu_hour_cost, as_json=json)


def submit(
    input: str | None = None,
    output: str | None = None,
    /,
    *,
    address: str | None = None,
    wait: _WAIT = True,
    installed: bool = False,
    pass_env: tuple[str, ...] = (),
    dry_run: bool = False,
    log_format: LogFormat = "text",
    config: Path | None = None,
    options: _OPTIONS = JobOptions(),  # noqa: B008
) -> int:
    """Run `annotate` on a Ray cluster, through its job server, and follow it from here.

    ```
    kosmos2 submit s3://bucket/shards/ s3://bucket/out/ --address http://head:8265
    ```

    A run that is at work on OUTPUT is found and followed, not started twice. Storage is reached
    with the cluster's own identity.

    Exit codes: those of `annotate`, told from OUTPUT where the driver could not say its own.

    Parameters
    ----------
    input
        Directory, s3:// prefix or any fsspec URL: docs/inputs.md.
    output
        Directory or s3:// prefix of the dataset.
    address
        The job server, as http://head:8265. Default: RAY_API_SERVER_ADDRESS, RAY_ADDRESS, or a
        cluster on this machine.
    wait
        Show the job's log until it ends; --detach returns at once.
    installed
        The cluster's image has kosmos2: ship no code.
    pass_env
        Ship this environment variable, which whoever reaches the cluster can then read. Repeat for
        more.
    dry_run
        Print what would be submitted.
    log_format
        Of the job: `json` for one object a line, with job and shard.
    config
        YAML file with options of the job, `input` and `output`; flags win over it.
    """
    from jobs.commands.submit import SubmitOptions, show_submission, submit_and_report
    from jobs.options.job_file import job_spec

    spec = job_spec(input, output, options, config)
    how = SubmitOptions(
        address=address, is_installed=installed, pass_env=pass_env, log_format=log_format
    )
    if dry_run:
        return show_submission(spec, how)
    return submit_and_report(spec, how, is_waiting=wait)


def stop(
    output: str,
    /,
    *,
    wait: bool = False,
    timeout_s: float = 120.0,
    access: _ACCESS = OutputAccess(),  # noqa: B008
) -> int:
    """Ask the run that writes to OUTPUT to stop, from any machine that can reach the storage.

    It commits what is ready, gives its lease back and exits with code 7. The same `annotate` or
    `submit` command goes on.

    ```
    kosmos2 stop s3://bucket/out/ --wait
    ```

    Exit codes: 0 asked (with --wait: stopped), or nobody was at work; 5 still there after
    --timeout.

    Parameters
    ----------
    output
        Directory or s3:// prefix of the dataset.
    wait
        Return when the run is gone.
    timeout_s
        With --wait: for so many seconds at most.
    """
    from jobs.commands.stop import stop_and_report

    return stop_and_report(output, access.output_storage, is_waiting=wait, timeout_s=timeout_s)
