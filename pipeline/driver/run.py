"""A run: plan, pending, passes, verdict."""

import logging

from pipeline.dataset.dataset import (
    Dataset,
    check_annotatable,
    open_dataset,
    read_record,
    settle_record,
)
from pipeline.dataset.layout import SUCCESS_KEY
from pipeline.dataset.leases import writing_to
from pipeline.dataset.ledger import Ledger
from pipeline.dataset.stop import StopRequest
from pipeline.driver.outcomes import Outcomes
from pipeline.driver.passes import Passes, ProgressObserver, Run
from pipeline.driver.pending import Pending, shards_to_retry
from pipeline.driver.preflight import model_resolver, reach_stores
from pipeline.driver.source import TableSource
from pipeline.driver.tally import Tally
from pipeline.driver.verdict import Verdict, settle_verdict
from pipeline.execution.graph import RayTables
from pipeline.plan.planning import settle_plan
from pipeline.spec.job import JobSpec, RetryOptions

_log = logging.getLogger(__name__)


def run(
    spec: JobSpec,
    observe: ProgressObserver = lambda progress: None,
    source: TableSource | None = None,
) -> Verdict:
    """Annotate what is left of `spec`; the same call resumes.

    `source` is where annotated tables come from: None is a Ray cluster.
    Raises PipelineError: its tree says what ends a run, and why.
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
            store.delete(SUCCESS_KEY)  # of a plan that was shorter then
        left, wanted = len(pending.left), len(pending.wanted)
        _log.info("%d of %d shards to do, input %s", left, wanted, spec.input)
        resolve = model_resolver(source, read_record(store))
        record = settle_record(store, spec, resolve, plan.ignored)
        model = record.model
        _log.info("model %s, %s, fingerprint %s", model.id, model.dtype, record.fingerprint)
        return _annotate(
            Run(
                dataset=Dataset(store=store, plan=plan, record=record),
                spec=model.pinned(spec),
                source=source,
                lease=lease,
                stop=stop,
                tally=tally,
                observe=observe,
            ),
            pending,
        )


def retry(
    output: str,
    options: RetryOptions,
    observe: ProgressObserver = lambda progress: None,
    source: TableSource | None = None,
) -> Verdict:
    """Annotate again what failed, or rejected samples of what is committed.

    Whatever is wrong with the job or the output raises PipelineError, as in `run`.
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
        _log.info("%d shards to do again", len(pending.left))
        spec = options.applied_to(dataset.record.spec, output)
        return _annotate(
            Run(
                dataset=dataset,
                spec=dataset.record.model.pinned(spec),
                source=source or RayTables(),
                lease=lease,
                stop=stop,
                tally=tally,
                observe=observe,
            ),
            pending,
        )


def _annotate(run: Run, pending: Pending) -> Verdict:
    outcomes = Outcomes(pending, Ledger(run.dataset.store), run.tally)
    if pending.left:
        Passes(run, outcomes).run()
    return settle_verdict(run, outcomes)
