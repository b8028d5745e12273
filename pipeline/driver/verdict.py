"""How a run ended."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.dataset.commit import Committed, ShardFailed
from pipeline.dataset.dataset import write_success
from pipeline.dataset.ledger import Ledger, Totals
from pipeline.dataset.reject_rate import is_mostly_rejects
from pipeline.dataset.shards import load_plan
from pipeline.driver.outcomes import Outcomes
from pipeline.driver.passes import Run
from pipeline.errors import ShardsFailed
from pipeline.exit_codes import ExitCode
from pipeline.faults import fault
from pipeline.progress import Progress
from pipeline.storage import OutputStore
from pipeline.storage.s3 import RETRIES

_FAILURES_TOLD = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    exit_code: ExitCode
    progress: Progress
    failures: tuple[ShardFailed, ...]
    is_tripped: bool  # ended before its time: one shard after another was mostly rejects
    is_mostly_rejects: bool  # all is committed, and it is no dataset
    store_retries: int  # requests of this process to the store that were sent again

    def raise_for_failures(self) -> None:
        """Raise ShardsFailed unless everything that was asked for is committed, and a dataset."""
        if self.exit_code is ExitCode.DONE:
            return
        reasons = [f"{each.shard_id}: {each.error_type}: {each.message}" for each in self.failures]
        if self.is_mostly_rejects:
            reasons.append("most images were rejected: look at the input and at the rejects")
        done = f"{self.progress.shards_done} of {self.progress.shards_total} shards are committed"
        raise ShardsFailed("; ".join([done, *reasons[:_FAILURES_TOLD]]))


def settle_verdict(run: Run, outcomes: Outcomes) -> Verdict:
    """Records failures, and success where all of the plan is committed."""
    fault("runner.before_verdict")
    outcomes.record_failures()
    progress = run.tally.progress()
    run.observe(progress)
    store, record = run.dataset.store, run.dataset.record
    commits = Ledger(store).summaries()
    totals = Totals.of(commits.values())
    is_rejects = outcomes.is_complete and is_mostly_rejects(
        annotated=totals.annotated,
        rejected=totals.rejected,
        max_reject_rate=run.spec.max_reject_rate,
    )
    is_done = outcomes.is_complete and not is_rejects
    if is_done and _is_whole(store, commits):
        write_success(store, record, totals)
    not_done = ExitCode.STOPPED if run.stop.is_made else ExitCode.SHARDS_FAILED
    return Verdict(
        exit_code=ExitCode.DONE if is_done else not_done,
        progress=progress,
        failures=outcomes.failures,
        is_tripped=outcomes.is_tripped,
        is_mostly_rejects=is_rejects,
        store_retries=round(RETRIES.total),
    )


def _is_whole(store: OutputStore, commits: Mapping[str, Committed]) -> bool:
    """The plan as it is now: other runs do other partitions, and may have extended it.

    Each run looks after its last commit, so the one that commits last sees all of them.
    """
    plan = load_plan(store)
    return plan is not None and {shard.shard_id for shard in plan.shards} <= commits.keys()
