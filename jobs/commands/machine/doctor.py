"""`kosmos2 doctor`: check what a job needs."""

import os
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.text import Text

from jobs.options.groups import AsJson, ConfigFile, JobInput, JobOutput, with_flags
from jobs.options.job_file import job_spec
from jobs.terminal import DataTable, print_json, print_results
from pipeline.exit_codes import ExitCode
from pipeline.spec.job import JobOptions

if TYPE_CHECKING:
    from pipeline.doctor.checks import PartCheck

_STYLES = {"right": "green", "wrong": "red", "skipped": "dim"}


@with_flags
def doctor_command(
    input: JobInput = None,
    output: JobOutput = None,
    /,
    *,
    address: str | None = None,
    json: AsJson = False,
    config: ConfigFile = None,
    options: JobOptions,
) -> int:
    """Check all that a job needs before it starts: versions, places, clock, model, resources.

    ```
    kosmos2 doctor
    kosmos2 doctor s3://bucket/shards/ s3://bucket/out/ --actors 8 --address head:6379
    ```

    Each line is green or red, and a red line says what to do. An output is written to only to try
    conditional writes, on an object that is removed again. Values of credentials are never shown.

    Exit codes: 0 all is right, 2 something is wrong.

    Parameters
    ----------
    address
        Cluster that would run the job: HOST:PORT for `annotate`, http://head:8265 for `submit`.
        Default: RAY_ADDRESS, then this machine.
    """
    from pipeline.doctor.checks import check_setup
    from pipeline.doctor.setup import JobSetup

    is_job_server = address is not None and "://" in address
    if address is not None and not is_job_server:
        os.environ["RAY_ADDRESS"] = address
    # The file of --config has both, or the command line has those to check.
    nowhere = os.devnull if config is None else None
    spec = job_spec(input or nowhere, output or nowhere, options, config)
    setup = JobSetup(
        spec=spec,
        has_input=spec.input != os.devnull,
        has_output=spec.output != os.devnull,
        job_server=address if is_job_server else None,
    )
    found = list(check_setup(setup))
    is_right = all(each.state != "wrong" for each in found)
    if json:
        print_json({"is_right": is_right, "parts": [asdict(each) for each in found]})
    else:
        print_results(_table(found))
    return ExitCode.DONE if is_right else ExitCode.USAGE


def _table(found: "Iterable[PartCheck]") -> DataTable:
    table = DataTable()
    table.add_column("part", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("found", overflow="fold")
    for each in found:
        table.add_row(each.part, Text(each.state, style=_STYLES[each.state]), each.said)
    return table
