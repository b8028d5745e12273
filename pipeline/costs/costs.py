"""The costs of a dataset so far, and an estimate of the rest."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.costs.actor_time import ActorTime, total_time
from pipeline.costs.interval import Estimate, ratio

_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PaidShard:
    """A committed shard: its images and bytes, and the time of actors that it took, if known."""

    images: int
    size_bytes: int
    time: ActorTime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """The costs of a dataset. All counts are None where no shard has an account.

    Attributes:
        time: Time of actors, over all runs.
        in_no_commit: The part of it that no commit stands for: that of runs in progress since their
            last commit, and what ended runs had not committed.
        shards_unknown: Number of committed shards without an account: earlier versions wrote none.
        gpu_hour_cost: Price of one GPU hour.
        gpu_s_per_image: GPU seconds held per image, over the committed shards; None if actors held
            no GPU.
        gpu_s_left: GPU seconds that the shards that are left will take, likewise.
        cost: Price of `time`; None without a price or a GPU.
        cost_per_1000_images: Price of 1,000 images, likewise.
        cost_left: Price of the shards that are left, likewise.
    """

    time: ActorTime | None
    in_no_commit: ActorTime | None
    shards_unknown: int
    gpu_hour_cost: float | None
    gpu_s_per_image: Estimate | None
    gpu_s_left: Estimate | None
    cost: float | None
    cost_per_1000_images: Estimate | None
    cost_left: Estimate | None


def costs_of(
    shards: Sequence[PaidShard],
    in_no_commit: ActorTime,
    *,
    bytes_left: int,
    gpu_hour_cost: float | None = None,
) -> Costs:
    """Add up what shards took, and estimate what the rest will take.

    Intervals are from the spread over shards.

    Args:
        shards: The committed shards.
        in_no_commit: Time of actors that no commit stands for.
        bytes_left: Size of the shards that are left.
        gpu_hour_cost: Price of one GPU hour.

    Returns:
        The costs.
    """
    known = [(shard, shard.time) for shard in shards if shard.time is not None]
    time = total_time([in_no_commit, *(each for _, each in known)])
    per_image = _rate([(each.gpu_held_s, shard.images) for shard, each in known])
    per_byte = _rate([(each.gpu_held_s, shard.size_bytes) for shard, each in known])
    left = per_byte and per_byte.times(bytes_left)
    is_known = bool(known) or not shards
    has_price = gpu_hour_cost is not None and time.gpu_held_s > 0 and is_known
    price = (gpu_hour_cost or 0.0) / _HOUR_S
    return Costs(
        time=time if is_known else None,
        in_no_commit=in_no_commit if is_known else None,
        shards_unknown=len(shards) - len(known),
        gpu_hour_cost=gpu_hour_cost,
        gpu_s_per_image=per_image,
        gpu_s_left=left,
        cost=time.gpu_held_s * price if has_price else None,
        cost_per_1000_images=per_image.times(1000 * price) if per_image and has_price else None,
        cost_left=left.times(price) if left and has_price else None,
    )


def _rate(pairs: Sequence[tuple[float, float]]) -> Estimate | None:
    """Estimate the seconds per unit; None if there are none."""
    if not any(seconds for seconds, _ in pairs) or not any(units for _, units in pairs):
        return None
    return ratio(pairs)
