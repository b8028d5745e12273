"""What a run finds on its output: done, to do, given up."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.dataset.commit import ShardFailed
from pipeline.dataset.ledger import MAX_ATTEMPTS, Failure, Ledger
from pipeline.dataset.shards import Shard


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a run finds: shards to do, shards done, shards that failed too often to try again."""

    wanted: tuple[Shard, ...]
    left: tuple[Shard, ...]
    committed: frozenset[str]
    failures: dict[str, Failure]  # by shard id, whatever their attempts
    given_up: tuple[ShardFailed, ...]

    @classmethod
    def of(cls, wanted: Sequence[Shard], ledger: Ledger) -> "Work":
        committed = ledger.committed()
        failures = ledger.failed(committed)
        given_up = {
            shard_id: _as_failed(failure)
            for shard_id, failure in failures.items()
            if failure.attempts >= MAX_ATTEMPTS
        }
        closed = committed | given_up.keys()
        return cls(
            wanted=tuple(wanted),
            left=tuple(shard for shard in wanted if shard.shard_id not in closed),
            committed=frozenset(s.shard_id for s in wanted if s.shard_id in committed),
            failures=failures,
            given_up=tuple(given_up[s.shard_id] for s in wanted if s.shard_id in given_up),
        )

    @classmethod
    def again(cls, shards: Sequence[Shard]) -> "Work":
        """All of `shards`, whatever storage says of them."""
        return cls(
            wanted=tuple(shards),
            left=tuple(shards),
            committed=frozenset(),
            failures={},
            given_up=(),
        )


def _as_failed(failure: Failure) -> ShardFailed:
    return ShardFailed(
        shard_id=failure.shard_id,
        error_type=failure.error_type,
        message=f"{failure.message} (given up after {failure.attempts} attempts)",
        retriable=False,
    )
