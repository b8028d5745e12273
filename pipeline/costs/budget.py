"""The limit on what a dataset may cost."""

from dataclasses import dataclass, field

from pipeline.costs.actor_time import ActorTime

_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The limits of a run.

    Attributes:
        max_gpu_hours: Most hours that GPUs may be held, over all runs. None: no limit.
        max_cost: Most that these may cost. None: no limit.
        gpu_hour_cost: Price of a GPU hour.
        before: Time of earlier runs.
    """

    max_gpu_hours: float | None = None
    max_cost: float | None = None
    gpu_hour_cost: float | None = None
    before: ActorTime = field(default_factory=ActorTime)

    @property
    def is_limited(self) -> bool:
        return self.max_gpu_hours is not None or self.max_cost is not None

    def reached(self, now: ActorTime) -> str:
        """Return the limit that is reached with the time of this run, as text; "" if none is."""
        hours = (self.before.gpu_held_s + now.gpu_held_s) / _HOUR_S
        if self.max_gpu_hours is not None and hours >= self.max_gpu_hours:
            return f"--max-gpu-hours {self.max_gpu_hours:g}: GPUs were held for {hours:.4g} hours"
        if self.max_cost is not None and self.gpu_hour_cost is not None:
            cost = hours * self.gpu_hour_cost
            if cost >= self.max_cost:
                return f"--max-cost {self.max_cost:g}: GPUs cost {cost:,.2f}"
        return ""
