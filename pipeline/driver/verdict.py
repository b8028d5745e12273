"""The verdict on a run: its exit code, progress and failures."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.dataset.commit import Committed, ShardFailed
from pipeline.dataset.dataset import read_record, write_success
from pipeline.dataset.ledger import Ledger, Totals
from pipeline.dataset.reject_rate import is_mostly_rejects
from pipeline.dataset.shards import load_plan
from pipeline.driver.supervision.supervisor import RunSupervisor
from pipeline.errors import ShardsFailed
from pipeline.exit_codes import ExitCode
from pipeline.faults import fault
from pipeline.progress import Progress
from pipeline.schema import OUT_OF_MEMORY
from pipeline.spec.job import JobSpec
from pipeline.storage import OutputStore
from pipeline.storage.clouds.retries import RETRIES

_FAILURES_TOLD = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How a run ended, as `run` and `retry` return it.

    Attributes:
        exit_code: DONE, SHARDS_FAILED or STOPPED, the exit code of `kosmos2 annotate`.
        progress: The progress at the end.
        failures: Shards that failed in this run, each with its reason.
        is_tripped: Whether the run ended early because one shard after another was mostly rejected,
            or because the memory of an actor ran out (a failure `out_of_memory` says so).
        is_mostly_rejects: Whether all shards are committed, but most samples are rejected.
        budget_reached: The limit of the budget that ended the run, as text; "" if none did.
        store_retries: Number of requests to the store that this process repeated.

    Example:
        >>> verdict = run(JobSpec(input="photos/", output="out"))
        >>> verdict.exit_code.name, verdict.failures
        ('DONE', ())
        >>> verdict.raise_for_failures()
    """

    exit_code: ExitCode
    progress: Progress
    failures: tuple[ShardFailed, ...]
    is_tripped: bool
    is_mostly_rejects: bool
    store_retries: int
    budget_reached: str = ""

    @property
    def is_out_of_memory(self) -> bool:
        """Return whether the run ended early because the memory of an actor ran out."""
        return any(each.error_type == OUT_OF_MEMORY for each in self.failures)

    def raise_for_failures(self) -> None:
        """Raise an error unless `exit_code` is DONE.

        Raises:
            ShardsFailed: Shards failed, the run was stopped or reached a limit of its budget, or
                most samples were rejected. The message has the first reasons.
        """
        if self.exit_code is ExitCode.DONE:
            return
        reasons = [f"{each.shard_id}: {each.error_type}: {each.message}" for each in self.failures]
        if self.is_mostly_rejects:
            reasons.append("most images were rejected: check the input and the rejects")
        if self.budget_reached:
            reasons.append(self.budget_reached)
        done = f"{self.progress.shards_done} of {self.progress.shards_total} shards are committed"
        raise ShardsFailed("; ".join([done, *reasons[:_FAILURES_TOLD]]))


def settle_verdict(spec: JobSpec, run: RunSupervisor) -> Verdict:
    """Record failures, and success if the whole plan is committed."""
    fault("runner.before_verdict")
    outcomes = run.outcomes
    outcomes.record_failures()
    progress = run.tally.progress()
    run.observe(progress)
    store = run.store
    commits = Ledger(store).summaries()
    totals = Totals.of(commits.values())
    is_rejects = outcomes.is_complete and is_mostly_rejects(
        annotated=totals.annotated,
        rejected=totals.rejected,
        max_reject_rate=spec.max_reject_rate,
    )
    is_done = outcomes.is_complete and not is_rejects
    if is_done and _is_whole(store, commits) and (record := read_record(store)):
        write_success(store, record, totals)
    not_done = ExitCode.STOPPED if run.is_stopped else ExitCode.SHARDS_FAILED
    return Verdict(
        exit_code=ExitCode.DONE if is_done else not_done,
        progress=progress,
        failures=outcomes.failures,
        is_tripped=outcomes.is_tripped,
        is_mostly_rejects=is_rejects,
        store_retries=round(RETRIES.total),
        budget_reached="" if is_done else run.budget_reached,
    )


def _is_whole(store: OutputStore, commits: Mapping[str, Committed]) -> bool:
    """Return whether the plan as it is now is committed.

    Other runs write other partitions, and may have extended the plan. Each run checks after its
    last commit, so the run that commits last sees all commits.
    """
    plan = load_plan(store)
    return plan is not None and {shard.shard_id for shard in plan.shards} <= commits.keys()
