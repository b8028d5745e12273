"""The outcomes of a run's shards: in its log, its tally and the ledger."""

import logging
from dataclasses import asdict

from pipeline.dataset.commit import Committed, ShardFailed
from pipeline.dataset.ledger import COMMITS_PER_SUMMARY, Ledger
from pipeline.dataset.shards import Shard
from pipeline.driver.finishing import ShardOutcome
from pipeline.driver.pending import Pending
from pipeline.driver.tally import Tally
from pipeline.execution import metrics
from pipeline.faults import fault
from pipeline.schema import OUT_OF_MEMORY

_TRIPPING_SHARDS = 10  # `too_many_rejects` in a row; then the cause is not a single shard

_log = logging.getLogger(__name__)


class Outcomes:
    """The outcomes of a run.

    `committed` also has ids of former runs; `failed` is of this run only.
    """

    def __init__(self, pending: Pending, ledger: Ledger, tally: Tally) -> None:
        self._pending = pending
        self._ledger = ledger
        self._tally = tally
        self._sizes = {shard.shard_id: shard.own_bytes for shard in pending.wanted}
        self.committed = set(pending.committed)
        self.failed: dict[str, ShardFailed] = {}
        self._unsummarised = ledger.unsummarised(self.committed) if pending.left else []
        self._rejecting = 0  # shards in a row that failed as too_many_rejects
        tally.begin(
            shards=len(pending.wanted),
            bytes_=sum(self._sizes.values()),
            shards_done=len(pending.committed),
            bytes_done=sum(self._sizes[shard_id] for shard_id in pending.committed),
            shards_failed=len(pending.given_up),
        )

    @property
    def is_complete(self) -> bool:
        return len(self.committed) == len(self._pending.wanted)

    @property
    def is_tripped(self) -> bool:
        """Return whether the run must end early.

        So many shards in a row were mostly rejected, or the memory of an actor ran out.
        """
        return self._rejecting >= _TRIPPING_SHARDS or any(
            map(_is_out_of_memory, self.failed.values())
        )

    @property
    def failures(self) -> tuple[ShardFailed, ...]:
        """The shards that failed in this run, and those that it did not retry."""
        return (*self._pending.given_up, *self.failed.values())

    def left(self) -> list[Shard]:
        """Return the shards that another pass may complete."""
        return [shard for shard in self._pending.left if self._is_left(shard.shard_id)]

    def _is_left(self, shard_id: str) -> bool:
        failed = self.failed.get(shard_id)
        return shard_id not in self.committed and (failed is None or failed.retriable)

    def settle(self, outcome: ShardOutcome) -> None:
        if isinstance(outcome, Committed):
            self._settle_commit(outcome)
        else:
            self._settle_failure(outcome)
        self._tally.shards_failed = len(self._pending.given_up) + len(self.failed)

    def _settle_commit(self, committed: Committed) -> None:
        shard_id = committed.shard_id
        self._rejecting = 0
        self.committed.add(shard_id)
        if committed.is_ours:  # the other run counts its own
            self._unsummarised.append(committed)
            metrics.observe("kosmos2_put_seconds", committed.put_s)
        self._tally.add_shard(self._sizes[shard_id])
        self.failed.pop(shard_id, None)
        if shard_id in self._pending.failures:
            self._ledger.forget_failure(shard_id)
        _log.info(
            "committed %s: %d samples, %d annotations, %d rejections%s%s",
            shard_id,
            committed.samples,
            committed.annotated,
            committed.rejected,
            f", {committed.copies} copies" if committed.copies else "",
            ", input could not be read to its end" if committed.truncated else "",
            extra=asdict(committed),
        )
        fault("driver.committed", shard_id=shard_id)

    def _settle_failure(self, failed: ShardFailed) -> None:
        is_rejecting = failed.error_type == "too_many_rejects"
        self._rejecting = self._rejecting + 1 if is_rejecting else 0
        self.failed[failed.shard_id] = failed
        _log.warning(
            "failed %s: %s: %s",
            failed.shard_id,
            failed.error_type,
            failed.message,
            # the name `message` is taken by the whole line
            extra={"shard_id": failed.shard_id, "error_type": failed.error_type},
        )

    def summarise(self, *, at_least: int = COMMITS_PER_SUMMARY) -> None:
        """Write the commits that the ledger lacks, if there are at least `at_least`."""
        if len(self._unsummarised) >= at_least:
            self._ledger.summarise(self._unsummarised)
            self._unsummarised = []

    def record_failures(self) -> None:
        """Write the failures to the ledger, at the end of a run."""
        partly = {shard.shard_id for shard in self._pending.wanted if shard.only is not None}
        for failed in self.failed.values():
            # those of a part stay committed as they are; for memory, no shard is to blame
            if failed.shard_id not in partly and not _is_out_of_memory(failed):
                self._ledger.record_failure(failed)


def _is_out_of_memory(failed: ShardFailed) -> bool:
    return failed.error_type == OUT_OF_MEMORY
