"""The exit code of a job that ran elsewhere."""

from dataclasses import dataclass

from pipeline.dataset.status import outcome_of
from pipeline.errors import PipelineError
from pipeline.exit_codes import ExitCode
from pipeline.spec.job import JobSpec

# These a driver says of itself, and nothing else does: a storage that is complete is no contrary
# (the job may have been refused for other settings on a finished output).
_OWN_WORDS = frozenset(ExitCode) - {ExitCode.DONE, ExitCode.ERROR}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobVerdict:
    exit_code: ExitCode
    reason: str


def verdict_on(spec: JobSpec, *, driver_exit_code: int | None) -> JobVerdict:
    """Tell how a job ended from its driver's exit code, else from its output.

    Ray's state is not used: a driver that was killed can read SUCCEEDED.
    """
    if driver_exit_code in _OWN_WORDS:
        return JobVerdict(exit_code=ExitCode(driver_exit_code), reason="the driver says so")
    try:
        outcome = outcome_of(spec)
    except PipelineError as error:
        return _without_storage(driver_exit_code, error)
    if driver_exit_code == ExitCode.ERROR:
        return JobVerdict(exit_code=ExitCode.ERROR, reason="the driver says so")
    done = f"{outcome.shards_committed} of {outcome.shards_wanted} shards are committed"
    if outcome.exit_code is None:
        reason = f"{done}, and the driver is gone: the same command goes on"
        return JobVerdict(exit_code=ExitCode.ERROR, reason=reason)
    return JobVerdict(exit_code=outcome.exit_code, reason=f"{done}, {outcome.shards_failed} failed")


def _without_storage(driver_exit_code: int | None, error: PipelineError) -> JobVerdict:
    is_done = driver_exit_code == ExitCode.DONE
    return JobVerdict(
        exit_code=ExitCode.DONE if is_done else ExitCode.ERROR,
        reason=f"the driver ended with {driver_exit_code}; its output cannot be read here: {error}",
    )
