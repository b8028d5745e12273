"""The commands that look after a job that runs elsewhere."""

from typing import Annotated

from cyclopts import Parameter

from pipeline.spec import OutputAccess

_ACCESS = Annotated[OutputAccess, Parameter(name="*")]


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
    from jobs.stop import stop_and_report

    return stop_and_report(output, access.output_storage, is_waiting=wait, timeout_s=timeout_s)
