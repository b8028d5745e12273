"""`kosmos2 stop`: asks who writes to an output to stop, through the storage."""

import time

from jobs.options.groups import ACCESS_DEFAULTS, AccessFlags, DatasetArgument
from jobs.terminal import print_message
from pipeline.dataset.dataset import open_dataset
from pipeline.dataset.stop import ask_to_stop
from pipeline.errors import Stalled
from pipeline.exit_codes import ExitCode
from pipeline.storage import OutputStore, open_output
from pipeline.verification.outputs import owners

_LOOK_S = 1.0


def stop_command(
    output: DatasetArgument,
    /,
    *,
    wait: bool = False,
    timeout_s: float = 120.0,
    access: AccessFlags = ACCESS_DEFAULTS,
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
    wait
        Return when the run is gone.
    timeout_s
        With --wait: for so many seconds at most.
    """
    store = open_output(output, access.output_storage)
    running = owners(store)
    for owner in running:
        ask_to_stop(store, owner.run_id)
        print_message(f"asked to stop: {owner.name}")
    if not running:
        open_dataset(output, access.output_storage)  # or the name is wrong
        print_message(f"nobody is at work on {store.uri}")
    elif wait:
        _wait_for_end(store, {owner.run_id for owner in running}, timeout_s)
        print_message("stopped; the same command goes on")
    return ExitCode.DONE


def _wait_for_end(store: OutputStore, runs: set[str], timeout_s: float) -> None:
    """Wait until the runs have ended. Raises Stalled after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while runs & {owner.run_id for owner in owners(store)}:
        if time.monotonic() > deadline:
            raise Stalled(
                f"still there after {timeout_s:.0f} s: a run that loads its model stops when that "
                "is done; one that died on another machine is replaced by the same command"
            )
        time.sleep(_LOOK_S)
