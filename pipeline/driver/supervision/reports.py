"""The exchange between a run and its parts, which are in processes of their own."""

from dataclasses import dataclass

from pipeline.driver.finishing import ShardOutcome
from pipeline.driver.tally import DriverState, TableCounts
from pipeline.errors import PipelineError
from pipeline.execution.resources import Share
from pipeline.spec.identity import ResolvedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """The question of a run to its part. The answer is a `PartReport`.

    Attributes:
        share: The share of the cluster that the part may use.
        is_stopped: Whether a stop was requested.
        is_over: Whether the passes of the part must end.
    """

    share: Share
    is_stopped: bool = False
    is_over: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PartReport:
    """The news of a part since its last report.

    Attributes:
        outcomes: Outcomes of shards, in their order.
        counts: Figures of the tables that came.
        state: State of the part's driver.
        model: The model, if an actor has loaded it meanwhile.
        store_retries: Number of requests to the store that the process repeated.
        has_ended: Whether the passes of the part have ended. Then this is the last report.
        error: The error that ended them.
    """

    outcomes: tuple[ShardOutcome, ...]
    counts: tuple[TableCounts, ...]
    state: DriverState
    model: ResolvedModel | None
    store_retries: float
    has_ended: bool
    error: PipelineError | None
