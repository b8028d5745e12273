"""`kosmos2 stop`: ask a run to stop, through its output."""

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
    """Ask the run that is writing OUTPUT to stop. Works from any machine that can reach OUTPUT.

    The run commits the shards that are ready, releases its lease and exits with code 7. To resume,
    run the same `annotate` or `submit` command again.

    ```
    kosmos2 stop s3://bucket/out/ --wait
    ```

    Exit codes: 0 the run was asked to stop (with --wait: it has stopped), or there was none; 5 the
    run did not stop within --timeout.

    Parameters
    ----------
    wait
        Wait until the run has stopped.
    timeout_s
        With --wait: largest number of seconds to wait.
    """
    store = open_output(output, access.output_storage)
    running = owners(store)
    for owner in running:
        ask_to_stop(store, owner.run_id)
        print_message(f"asked to stop: {owner.name}")
    if not running:
        open_dataset(output, access.output_storage)  # or the name is wrong
        print_message(f"no run is writing {store.uri}")
    elif wait:
        _wait_for_end(store, {owner.run_id for owner in running}, timeout_s)
        print_message("stopped; run the same command again to resume")
    return ExitCode.DONE


def _wait_for_end(store: OutputStore, runs: set[str], timeout_s: float) -> None:
    """Wait until the runs have ended. Raises Stalled after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while runs & {owner.run_id for owner in owners(store)}:
        if time.monotonic() > deadline:
            raise Stalled(
                f"the run did not stop within {timeout_s:.0f} s. It cannot stop while it loads its "
                "model: wait longer with --timeout. If it died on another machine, run the same "
                "annotate command again"
            )
        time.sleep(_LOOK_S)
