"""A run: plan, pending, passes, verdict."""

import logging
from dataclasses import replace
from functools import partial

from pipeline.costs.budget import Budget
from pipeline.costs.drivers import PACE_ON_A_GPU, BusyPace
from pipeline.dataset.dataset import (
    check_annotatable,
    open_dataset,
    read_record,
)
from pipeline.dataset.layout import SUCCESS_KEY
from pipeline.dataset.leases import writing_to
from pipeline.dataset.ledger import Ledger
from pipeline.dataset.spending import spent_before
from pipeline.dataset.stop import StopRequest
from pipeline.driver.outcomes import Outcomes
from pipeline.driver.passes import Passes, Run
from pipeline.driver.pending import Pending, shards_to_retry
from pipeline.driver.preflight import known_model, open_source, reach_stores, settle_job
from pipeline.driver.source import TableSource
from pipeline.driver.supervision.parts import Parts
from pipeline.driver.supervision.supervisor import RunSupervisor
from pipeline.driver.tally import Tally
from pipeline.driver.verdict import Verdict, settle_verdict
from pipeline.execution.graph import RayTables
from pipeline.plan.planning import settle_plan
from pipeline.progress import ProgressObserver
from pipeline.spec.identity import ResolvedModel
from pipeline.spec.job import JobSpec, RetryOptions
from pipeline.storage import OutputStore

_log = logging.getLogger(__name__)


def run(
    spec: JobSpec,
    on_progress: ProgressObserver = lambda progress: None,
    source: TableSource | None = None,
) -> Verdict:
    """Annotate the shards of a job that are not committed yet. The same call resumes.

    The job uses the Ray that this process is connected to, else the one of RAY_ADDRESS, else a
    local one that it starts. Ray is left running in each case.

    Args:
        spec: The job: input, output, tasks and options.
        on_progress: Called with a Progress twice a second and after each table of images.
        source: Source of annotated tables instead of Ray. For tests.

    Returns:
        How the run ended. Failed shards do not raise: see `Verdict.raise_for_failures`.

    Raises:
        PipelineError: The run as a whole cannot continue. The message says why and what to do;
            `pipeline.errors` lists the subclasses.

    Example:
        >>> verdict = run(JobSpec(input="photos/", output="out", actors=(1, 4)))
        >>> verdict.raise_for_failures()
        >>> verdict.progress.shards_done
        1
    """
    source = source or RayTables()
    store, tally = reach_stores(spec), Tally()
    with (
        writing_to(store, spec.partition, tally.progress) as lease,
        StopRequest(store, lease.run_id) as stop,
    ):
        plan = settle_plan(store, spec)
        pending = Pending.of(plan.part(spec.partition)[: spec.limit], Ledger(store))
        if pending.left:
            store.delete(SUCCESS_KEY)  # written for a plan that was shorter then
        left, wanted = len(pending.left), len(pending.wanted)
        _log.info("%d of %d shards to do, input %s", left, wanted, spec.input)
        settle = partial(settle_job, store, spec, ignored=plan.ignored)
        model = known_model(spec, read_record(store), is_work_left=bool(left))
        if model is not None:
            settle(model)
        supervisor = RunSupervisor(
            store=store,
            settle_record=settle,
            lease=lease,
            stop=stop,
            outcomes=Outcomes(pending, Ledger(store), tally),
            tally=tally,
            observe=on_progress,
            budget=_budget(store, spec),
        )
        return _annotate(spec, model, source, supervisor)


def retry(
    output: str,
    options: RetryOptions,
    on_progress: ProgressObserver = lambda progress: None,
    source: TableSource | None = None,
) -> Verdict:
    """Retry the failed shards of a dataset, or the rejected samples of committed shards.

    Args:
        output: Directory or `s3://` prefix of the dataset. The options of the job are read from
            its `job.json`.
        options: What to retry, and options that replace those of the job.
        on_progress: As in `run`.
        source: As in `run`.

    Returns:
        How the run ended.

    Raises:
        PipelineError: As in `run`; ObjectMissing if there is no dataset.

    Example:
        >>> verdict = retry("out", RetryOptions(samples=True))
        >>> verdict.exit_code.name
        'DONE'
    """
    dataset = open_dataset(output, options.output_storage)
    store, tally = dataset.store, Tally()
    check_annotatable(store, dataset.record)
    store.probe()
    with (
        writing_to(store, progress=tally.progress) as lease,
        StopRequest(store, lease.run_id) as stop,
    ):
        dataset = open_dataset(output, options.output_storage)
        pending = Pending.again(shards_to_retry(dataset, options))
        _log.info("%d shards to retry", len(pending.left))
        spec = options.applied_to(dataset.record.spec, output)
        supervisor = RunSupervisor(
            store=store,
            settle_record=partial(settle_job, store, spec),
            lease=lease,
            stop=stop,
            outcomes=Outcomes(pending, Ledger(store), tally),
            tally=tally,
            observe=on_progress,
            budget=_budget(store, spec),
        )
        return _annotate(spec, dataset.record.model, source or RayTables(), supervisor)


def _annotate(
    spec: JobSpec, model: ResolvedModel | None, source: TableSource, supervisor: RunSupervisor
) -> Verdict:
    left = supervisor.left()
    if left and not supervisor.budget_reached:
        spec = spec.seen_from_elsewhere()
        resources = open_source(source, spec, left[0], supervisor.store.uri)
        supervisor.tally.actor_resources = str(resources)
        run = Run(
            store=supervisor.store, spec=spec, model=model, source=source, resources=resources
        )
        drivers = min(spec.drivers_for(_needed_drivers(run)), len(left))
        if drivers > 1:
            Parts(run, supervisor, drivers).run()
        else:
            Passes(run, supervisor).run()
    return settle_verdict(spec, supervisor)


def _needed_drivers(run: Run) -> int:
    """Return the number of drivers that keep up. The commits are read only if it matters."""
    if run.spec.drivers or run.spec.actors[0] == 1:
        return 1
    on_gpus = run.resources.num_gpus > 0
    pace = BusyPace.of(Ledger(run.store).summaries().values(), on_gpus=on_gpus)
    if pace is None:
        return PACE_ON_A_GPU.drivers(run.spec.actors[1]) if on_gpus else 1
    return pace.drivers(run.spec.actors[1])


def _budget(store: OutputStore, spec: JobSpec) -> Budget:
    """Return the limits of a job. What earlier runs took is read if there are any."""
    limits = spec.model_dump(include={"max_gpu_hours", "max_cost", "gpu_hour_cost"})
    budget = Budget(**limits)
    return replace(budget, before=spent_before(store)) if budget.is_limited else budget
