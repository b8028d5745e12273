"""`kosmos2 stop`: asks who writes to an output to stop, through the storage."""

import time

from rich.console import Console

from pipeline.dataset.dataset import open_dataset
from pipeline.dataset.stop import ask_to_stop
from pipeline.errors import Stalled
from pipeline.exit_codes import ExitCode
from pipeline.storage import OutputStore, StorageOptions, open_output
from pipeline.verification.outputs import owners

_LOOK_S = 1.0


def stop_and_report(
    output: str, options: StorageOptions, *, is_waiting: bool, timeout_s: float
) -> int:
    """Raise Stalled if a run is still there after `timeout_s`, ObjectMissing if there is neither
    a run nor a dataset: the name is wrong then."""
    store = open_output(output, options)
    running = owners(store)
    for owner in running:
        ask_to_stop(store, owner.run_id)
        _say(f"asked to stop: {owner.name}")
    if not running:
        open_dataset(output, options)
        _say(f"nobody is at work on {store.uri}")
    elif is_waiting:
        _wait_for_end(store, {owner.run_id for owner in running}, timeout_s)
        _say("stopped; the same command goes on")
    return ExitCode.DONE


def _wait_for_end(store: OutputStore, runs: set[str], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while runs & {owner.run_id for owner in owners(store)}:
        if time.monotonic() > deadline:
            raise Stalled(
                f"still there after {timeout_s:.0f} s: a run that loads its model stops when that "
                "is done; one that died on another machine is replaced by the same command"
            )
        time.sleep(_LOOK_S)


def _say(text: str) -> None:
    Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)
