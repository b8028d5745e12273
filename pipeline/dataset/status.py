"""How a job ended, from its output alone."""

from dataclasses import dataclass

from pipeline.dataset.dataset import open_dataset
from pipeline.dataset.ledger import Ledger, Totals
from pipeline.dataset.reject_rate import is_mostly_rejects
from pipeline.exit_codes import ExitCode
from pipeline.spec.job import JobSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Of the shards that the job set out for."""

    shards_wanted: int
    shards_committed: int
    shards_failed: int
    is_mostly_rejects: bool

    @property
    def exit_code(self) -> ExitCode | None:
        """What a run that came to its end would have said; None where shards are left."""
        if self.shards_committed == self.shards_wanted and not self.is_mostly_rejects:
            return ExitCode.DONE
        if self.shards_committed + self.shards_failed == self.shards_wanted:
            return ExitCode.SHARDS_FAILED
        return None


def outcome_of(spec: JobSpec) -> Outcome:
    """Raises ObjectMissing where nothing was begun, StorageError."""
    job = open_dataset(spec.output, spec.output_storage)
    ledger = Ledger(job.store)
    commits = ledger.summaries()
    failed = ledger.failed(commits.keys())
    wanted = {shard.shard_id for shard in job.plan.part(spec.part)[: spec.limit]}
    totals = Totals.of(commits.values())
    return Outcome(
        shards_wanted=len(wanted),
        shards_committed=len(wanted & commits.keys()),
        shards_failed=len(wanted & failed.keys()),
        is_mostly_rejects=is_mostly_rejects(
            annotated=totals.annotated,
            rejected=totals.rejected,
            max_reject_rate=spec.max_reject_rate,
        ),
    )
