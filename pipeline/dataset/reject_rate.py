"""Limits on the share of rejected samples, above which a shard or a dataset fails."""

from dataclasses import dataclass, field
from threading import Lock

MIN_SAMPLES = 50  # fewer samples do not determine a rate


@dataclass(slots=True, kw_only=True)
class Breaker:
    """Judge the shards of a pass. Several threads may call it.

    A shard of fewer than `MIN_SAMPLES` is judged together with all such shards before it: 10,000
    folders of one broken image each are a systematic error too.
    """

    max_reject_rate: float
    _samples: int = 0  # samples of small shards
    _rejected: int = 0
    _lock: Lock = field(default_factory=Lock)

    def has_too_many(self, *, rejected: int, samples: int) -> bool:
        """Return whether a shard with this many rejected samples should fail."""
        is_over = rejected > 0 and rejected / samples > self.max_reject_rate
        if samples >= MIN_SAMPLES:
            return is_over
        with self._lock:
            self._samples += samples
            self._rejected += rejected
            is_enough = self._samples >= MIN_SAMPLES
            return is_over and is_enough and self._rejected / self._samples > self.max_reject_rate


def is_mostly_rejects(*, annotated: int, rejected: int, max_reject_rate: float) -> bool:
    """Return whether a finished dataset holds too many rejected rows to be a success.

    Its shards were judged one by one. This judges their sum, however few they are.
    """
    rows = annotated + rejected
    is_over = rejected > 0 and rejected / rows > max_reject_rate
    return is_over and (rows >= MIN_SAMPLES or annotated == 0)
