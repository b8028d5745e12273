"""A run: passes over what is left, to a verdict."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa
from ray.exceptions import ActorDiedError, RayError

from pipeline.concurrency import TimedIterator
from pipeline.dataset.commit import Committed, ShardFailed
from pipeline.dataset.dataset import (
    Dataset,
    check_annotatable,
    check_identity,
    open_dataset,
    read_record,
    settle_record,
    write_success,
)
from pipeline.dataset.layout import SUCCESS_KEY
from pipeline.dataset.lease import Lease
from pipeline.dataset.leases import writing_to
from pipeline.dataset.ledger import COMMITS_PER_SUMMARY, Ledger, Totals
from pipeline.dataset.reject_rate import is_mostly_rejects
from pipeline.dataset.shards import Shard, load_plan
from pipeline.dataset.stop import StopRequest
from pipeline.driver.committer import INCOMPLETE, Committer, ShardOutcome
from pipeline.driver.pending import Pending, shards_to_retry
from pipeline.driver.tally import Tally
from pipeline.driver.watchdog import cause_of_stall, waiting_for_probe
from pipeline.errors import LeaseLost, SpecError, Stalled
from pipeline.execution import metrics
from pipeline.execution.annotate_actor import Annotate
from pipeline.execution.cluster import connect, end_actor, load, nodes_without
from pipeline.execution.graph import annotated_tables, probe_model
from pipeline.execution.model import LoadModel, load_model
from pipeline.execution.resources import ActorResources, actor_resources
from pipeline.exit_codes import ExitCode
from pipeline.faults import fault
from pipeline.plan.planning import settle_plan
from pipeline.progress import Progress
from pipeline.spec.identity import JobRecord, ResolvedModel, identity_of
from pipeline.spec.job import JobSpec, RetryOptions
from pipeline.storage import InputStore, open_output
from pipeline.storage.objects import Location
from pipeline.storage.s3 import RETRIES

FRUITLESS_PASSES = 3
BREAKER_SHARDS = 10  # so many `too_many_rejects` in a row: the trouble is not with one shard
_TICK_S = 0.5
_STARVED_S = 20.0  # without a row, before it is looked whether actors take the readers' CPUs
_PAUSE_S = 2.0  # after a pass that committed nothing; doubles

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    exit_code: ExitCode
    progress: Progress
    failures: tuple[ShardFailed, ...]
    is_tripped: bool  # ended before its time: one shard after another was mostly rejects
    is_mostly_rejects: bool  # all is committed, and it is no dataset
    store_retries: int  # requests of this process to the store that were sent again


Observer = Callable[[Progress], None]


def run(
    spec: JobSpec,
    observe: Observer = lambda progress: None,
    *,
    load: LoadModel = load_model,
) -> Verdict:
    """Annotate what is left of `spec`; the same call resumes.

    `load` makes what the actors annotate with: something else only for a benchmark.
    Raises PipelineError: its tree says what ends a run, and why.
    """
    store = open_output(spec.output, spec.output_storage)
    InputStore(spec.input_storage).reach(spec.input)
    InputStore(spec.output_storage).reach(spec.output)
    check_annotatable(store, read_record(store))
    store.probe()
    tally = Tally()
    with (
        writing_to(store, spec.part, tally.progress) as lease,
        StopRequest(store, lease.run_id) as stop,
    ):
        plan = settle_plan(store, spec)
        work = Pending.of(plan.part(spec.part)[: spec.limit], Ledger(store))
        if work.left:
            store.delete(SUCCESS_KEY)  # of a plan that was shorter then
        _log.info("%d of %d shards to do, input %s", len(work.left), len(work.wanted), spec.input)
        resolve = _resolver(spec, read_record(store))
        record = settle_record(store, spec, resolve, plan.ignored)
        spec = spec.pinned_to(record.model)
        _log.info(
            "model %s, %s, fingerprint %s", record.model.id, record.model.dtype, record.fingerprint
        )
        job = Dataset(store=store, plan=plan, record=record)
        return _Run(job, spec, work, lease, stop, tally, observe, load).to_verdict()


def retry(output: str, options: RetryOptions, observe: Observer = lambda progress: None) -> Verdict:
    """Annotate again what failed, or rejected samples of what is committed.

    Whatever is wrong with the job or the output raises PipelineError, as in `run`.
    """
    job = open_dataset(output, options.output_storage)
    store = job.store
    check_annotatable(store, job.record)
    store.probe()
    tally = Tally()
    with (
        writing_to(store, progress=tally.progress) as lease,
        StopRequest(store, lease.run_id) as stop,
    ):
        job = open_dataset(output, options.output_storage)
        work = Pending.again(shards_to_retry(job, options))
        _log.info("%d shards to do again", len(work.left))
        spec = options.applied_to(job.record.spec, output).pinned_to(job.record.model)
        return _Run(job, spec, work, lease, stop, tally, observe, load_model).to_verdict()


def _resolver(spec: JobSpec, record: JobRecord | None) -> Callable[[JobSpec], ResolvedModel]:
    """A job that was begun before knows its model; each actor checks that it has the same."""
    if record is not None and record.asks_for_model_of(spec):
        return lambda _: record.model
    return _resolve_on_cluster


def _resolve_on_cluster(spec: JobSpec) -> ResolvedModel:
    connect()
    return _resolve_with(actor_resources(spec), spec)


def _resolve_with(resources: ActorResources, spec: JobSpec) -> ResolvedModel:
    """Raises SpecError where the model does not load, Stalled."""
    found = probe_model(spec, resources, timeout_s=spec.stall_timeout_s)
    if found is None:
        raise Stalled(waiting_for_probe(load(""), resources))
    if isinstance(found, str):
        raise SpecError(found)
    _log.info(
        "%s on %s: %s slots, about %.1f GiB of memory per actor",
        *(found.id, found.device, found.slots, (found.memory_bytes or 0) / (1 << 30)),
    )
    return found


def check_nodes_see(shard: Shard, output: str) -> None:
    """Raises SpecError where a node would read local paths that it does not have: the input, and
    of pictures on their own also their list, which is in the output."""
    read = {"input": shard.uri}
    if shard.listing is not None:
        read["output"] = f"{output}/{shard.listing}"
    for what, uri in read.items():
        at = Location.of(uri)
        if at.scheme == "file" and (blind := nodes_without(at.path)):
            raise SpecError(
                f"{at.uri} is not there on {len(blind)} of the cluster's nodes ({blind[0]}, ...): "
                f"put the {what} where every node sees it, such as s3:// or a shared mount"
            )


class _Run:
    def __init__(
        self,
        job: Dataset,
        spec: JobSpec,
        work: Pending,
        lease: Lease,
        stop: StopRequest,
        tally: Tally,
        observe: Observer,
        load: LoadModel,
    ) -> None:
        self._job = job
        self._spec = spec
        self._work = work
        self._lease = lease
        self._stop = stop
        self._tally = tally
        self._observe = observe
        self._load = load
        self._ledger = Ledger(job.store)
        self._sizes = {shard.shard_id: shard.own_bytes for shard in work.wanted}
        self._committed = set(work.committed)
        self._failed: dict[str, ShardFailed] = {}  # in this run
        self._unsummarised = self._ledger.unsummarised(self._committed) if work.left else []
        self._rejecting = 0  # shards in a row that failed as too_many_rejects
        self._moved = time.monotonic()
        self._has_rows = False  # of this pass
        self._look_again = 0.0
        self._resources: ActorResources  # known once we are connected
        tally.begin(
            shards=len(work.wanted),
            bytes_=sum(self._sizes.values()),
            shards_done=len(work.committed),
            bytes_done=sum(self._sizes[shard_id] for shard_id in work.committed),
            shards_failed=len(work.given_up),
        )

    def to_verdict(self) -> Verdict:
        left = list(self._work.left)
        if left:
            connect()
            # Once: a node that is lost later may come back, and the watchdog knows when not.
            self._resources = actor_resources(self._spec)
            self._tally.actor_resources = str(self._resources)
            _log.info("%s actors, each asks for %s", self._spec.actors, self._resources)
            check_nodes_see(left[0], self._job.store.uri)
        fruitless = 0
        while left and fruitless < FRUITLESS_PASSES and not self._is_over:
            if fruitless:
                time.sleep(_PAUSE_S * 2 ** (fruitless - 1))
            committed = len(self._committed)
            self._pass(left)
            fruitless = 0 if len(self._committed) > committed else fruitless + 1
            left = [shard for shard in left if self._is_worth_another_pass(shard.shard_id)]
        return self._verdict()

    def _is_worth_another_pass(self, shard_id: str) -> bool:
        failed = self._failed.get(shard_id)
        return shard_id not in self._committed and (failed is None or failed.retriable)

    def _pass(self, shards: Sequence[Shard]) -> None:
        record, resources = self._job.record, self._resources
        committer = Committer(
            self._job.store, record, shards, max_reject_rate=self._spec.max_reject_rate
        )
        feed = TimedIterator(
            lambda: annotated_tables(
                shards,
                self._spec,
                record.identity,
                resources,
                slots=record.slots_of(self._spec),
                load=self._load,
            )
        )
        self._moved = time.monotonic()
        self._has_rows = False
        try:
            for table in feed.ticks(_TICK_S):
                self._take(committer, table)
                metrics.show_queues(
                    tables=feed.waiting, shards_open=committer.open_shards, puts=committer.puts
                )
                if self._is_over:
                    break
        except RayError as error:
            # Whatever was committed stays; the next pass takes up the rest.
            _log.warning("a pass ended early: %s", str(error).strip().splitlines()[-1])
            _log.debug("the whole error:", exc_info=True)
            if isinstance(error, ActorDiedError):
                self._check_model()
        finally:
            feed.stop()
            for outcome in committer.close():
                if not self._was_stopped_in(outcome):
                    self._settle(outcome)
            self._summarise(at_least=1)

    def _was_stopped_in(self, outcome: ShardOutcome) -> bool:
        is_incomplete = isinstance(outcome, ShardFailed) and outcome.error_type == INCOMPLETE
        return is_incomplete and self._stop.is_made

    def _take(self, committer: Committer, table: pa.Table | None) -> None:
        if table is not None and committer.add(table):
            tasks = len(self._spec.task)
            self._tally.add_images(
                annotated=(table.num_rows - table["annotated"].null_count) / tasks,
                rejected=(table.num_rows - table["rejected"].null_count) / tasks,
            )
            for usage in table["usage"].drop_null().to_pylist():
                self._tally.note_usage(**usage)
            self._moved = time.monotonic()
            self._has_rows = True
        for outcome in committer.finished():
            self._settle(outcome)
        self._summarise(at_least=COMMITS_PER_SUMMARY)
        progress = self._tally.progress()
        self._observe(progress)
        metrics.show(progress)
        self._check()

    def _check_model(self) -> None:
        """An actor died: because its model does not load, or is another one than the job's?

        Raises SpecError if so; no further pass would mend that.
        """
        identity = identity_of(self._spec, _resolve_with(self._resources, self._spec))
        check_identity(self._job.store, identity, self._job.record)

    def _check(self) -> None:
        """Raises LeaseLost, Stalled."""
        if self._lease.is_lost:
            raise LeaseLost("another run took this output over; this one stops")
        still_s = time.monotonic() - self._moved
        if still_s > _STARVED_S:
            self._leave_room_for_readers()
        if still_s > self._spec.stall_timeout_s:
            left = self._tally.shards_total - self._tally.shards_done
            raise Stalled(
                f"no row came for {still_s:.0f} s with {left} shards left: {self._cause()}; mend "
                "that, then run the same command again"
            )

    def _leave_room_for_readers(self) -> None:
        """A cluster that lost nodes may have just the CPUs of the actors, which Ray starts again
        there: no reader runs any more, and what the actors wait for may have to be read again. What
        the actor that goes had in work, the next pass does.
        """
        if time.monotonic() < self._look_again:
            return
        self._look_again = time.monotonic() + _STARVED_S
        now = load(Annotate.__name__)
        actors = now.actors + now.starting
        if actors > 1 and now.cpus - actors * self._resources.num_cpus < 1:
            _log.warning(
                "%d actors take all of the %g CPUs that are left, and nothing is read: one ends",
                *(actors, now.cpus),
            )
            end_actor(Annotate.__name__)

    def _cause(self) -> str:
        return cause_of_stall(
            self._job.store,
            self._spec,
            load(Annotate.__name__),
            self._resources,
            has_rows=self._has_rows,
        )

    def _settle(self, outcome: ShardOutcome) -> None:
        self._moved = time.monotonic()
        if isinstance(outcome, Committed):
            self._settle_commit(outcome)
        else:
            self._settle_failure(outcome)
        self._tally.shards_failed = len(self._work.given_up) + len(self._failed)

    def _settle_commit(self, committed: Committed) -> None:
        shard_id = committed.shard_id
        self._rejecting = 0
        self._committed.add(shard_id)
        if committed.is_ours:  # the other run counts its own
            self._unsummarised.append(committed)
            metrics.observe("kosmos2_put_seconds", committed.put_s)
        self._tally.add_shard(self._sizes[shard_id])
        self._failed.pop(shard_id, None)
        if shard_id in self._work.failures:
            self._ledger.forget_failure(shard_id)
        _log.info(
            "committed %s: %d samples, %d annotations, %d rejections%s",
            shard_id,
            committed.samples,
            committed.annotated,
            committed.rejected,
            ", input not readable to its end" if committed.truncated else "",
            extra=asdict(committed),
        )

    def _settle_failure(self, failed: ShardFailed) -> None:
        is_rejecting = failed.error_type == "too_many_rejects"
        self._rejecting = self._rejecting + 1 if is_rejecting else 0
        self._failed[failed.shard_id] = failed
        _log.warning(
            "failed %s: %s: %s",
            *(failed.shard_id, failed.error_type, failed.message),
            # `message` is the whole line's name.
            extra={"shard_id": failed.shard_id, "error_type": failed.error_type},
        )

    @property
    def _is_tripped(self) -> bool:
        return self._rejecting >= BREAKER_SHARDS

    @property
    def _is_over(self) -> bool:
        """Before everything is done: what is ready is committed, the rest is left."""
        return self._is_tripped or self._stop.is_made

    def _summarise(self, *, at_least: int) -> None:
        if len(self._unsummarised) >= at_least:
            self._ledger.summarise(self._unsummarised)
            self._unsummarised = []

    def _verdict(self) -> Verdict:
        fault("runner.before_verdict")
        partly = {shard.shard_id for shard in self._work.wanted if shard.only is not None}
        for failed in self._failed.values():
            if failed.shard_id not in partly:  # those stay committed as they are
                self._ledger.record_failure(failed)
        progress = self._tally.progress()
        self._observe(progress)
        is_complete = len(self._committed) == len(self._work.wanted)
        commits = self._ledger.summaries()
        totals = Totals.of(commits.values())
        is_rejects = is_complete and is_mostly_rejects(
            annotated=totals.annotated,
            rejected=totals.rejected,
            max_reject_rate=self._spec.max_reject_rate,
        )
        if is_complete and not is_rejects and self._is_whole(commits):
            write_success(self._job.store, self._job.record, totals)
        return Verdict(
            exit_code=self._exit_code(is_done=is_complete and not is_rejects),
            progress=progress,
            failures=(*self._work.given_up, *self._failed.values()),
            is_tripped=self._is_tripped,
            is_mostly_rejects=is_rejects,
            store_retries=round(RETRIES.total),
        )

    def _exit_code(self, *, is_done: bool) -> ExitCode:
        if is_done:
            return ExitCode.DONE
        return ExitCode.STOPPED if self._stop.is_made else ExitCode.SHARDS_FAILED

    def _is_whole(self, commits: Mapping[str, Committed]) -> bool:
        """The plan as it is now: other runs do other partitions, and may have extended it.

        Each run looks after its last commit, so the one that commits last sees all of them.
        """
        plan = load_plan(self._job.store)
        return plan is not None and {shard.shard_id for shard in plan.shards} <= commits.keys()
