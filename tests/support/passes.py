"""Passes and parts of a run, with tables from here instead of Ray."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa

from pipeline.costs.budget import Budget
from pipeline.dataset.dataset import settle_record
from pipeline.dataset.layout import lease_key
from pipeline.dataset.lease import Lease
from pipeline.dataset.ledger import Ledger
from pipeline.dataset.shards import Shard, ShardPlan, freeze_plan, shard_of
from pipeline.dataset.stop import StopRequest
from pipeline.driver.outcomes import Outcomes
from pipeline.driver.passes import Passes, Run
from pipeline.driver.pending import Pending
from pipeline.driver.supervision.parts import Parts
from pipeline.driver.supervision.supervisor import RunSupervisor
from pipeline.driver.tally import Tally
from pipeline.driver.verdict import Verdict, settle_verdict
from pipeline.errors import PassBroke, WorkerDied
from pipeline.execution.parts.process import Respondent
from pipeline.execution.resources import ActorResources, ClusterLoad, Share
from pipeline.execution.stored_tables import StoredTable, call_in_thread
from pipeline.progress import Progress
from pipeline.spec.identity import ResolvedModel
from pipeline.spec.job import JobSpec
from pipeline.storage import ObjectInfo, OutputStore, open_output
from tests.support.committing import shard_table
from tests.support.tars import MODEL

SAMPLES = 2
FREE = ClusterLoad(cpus=4, free_cpus=2, gpus=0, free_gpus=0, actors=1)
Tables = Callable[[Sequence[Shard]], Iterator[pa.Table]]


def whole(shards: Sequence[Shard]) -> Iterator[pa.Table]:
    return (shard_table(shard, SAMPLES) for shard in shards)


def broken(shards: Sequence[Shard]) -> Iterator[pa.Table]:
    raise PassBroke("a node went away")


def nothing(shards: Sequence[Shard]) -> Iterator[pa.Table]:
    return iter(())


Loaded = ResolvedModel | Exception | None


@dataclass(frozen=True)
class GivenTables:
    of: Callable[[], Iterator[pa.Table]]
    loaded: Callable[[], Loaded]
    call = staticmethod(call_in_thread)
    originals = None

    def __iter__(self) -> Iterator[StoredTable]:
        return map(StoredTable, self.of())

    def model(self) -> ResolvedModel | None:
        if isinstance(loaded := self.loaded(), Exception):
            raise loaded
        return loaded


@dataclass
class ProcessHere:
    """A respondent in this process, which dies in place of an answer where it is told to.

    `dies` may let it work on first.
    """

    respondent: Respondent
    dies: Callable[[], bool] = lambda: False

    def ask(self, question: object) -> "Future[Any]":
        answer = Future[Any]()
        try:
            if self.dies():
                raise WorkerDied("its process died")
            answer.set_result(self.respondent.answer(question))
        except Exception as error:  # noqa: BLE001 - as a process passes it on
            answer.set_exception(error)
        return answer

    def end(self) -> None:
        self.dies = lambda: True


@dataclass
class Source:
    """Gives each pass its own tables, the last of them to all that follow."""

    passes: Sequence[Tables] = (whole,)
    model: Loaded = MODEL
    load: ClusterLoad = FREE
    blind: list[str] = field(default_factory=list)
    asked: list[list[str]] = field(default_factory=list)  # the shards of each pass
    known: list[ResolvedModel | None] = field(default_factory=list)  # the model of each pass
    gpus: float = 0
    ended: int = 0
    dies: Callable[[], bool] = lambda: False  # asked before each answer of a part
    started: list[Any] = field(default_factory=list)  # the parts
    shares: list[Share] = field(default_factory=list)
    resized: list[Share] = field(default_factory=list)

    def part(self, share: Share) -> "Source":
        self.shares.append(share)
        return self

    def resize(self, share: Share) -> None:
        self.resized.append(share)

    def start(self, make: Callable[[], Respondent]) -> ProcessHere:
        self.started.append(make)
        return ProcessHere(make(), self.dies)

    def open(self, spec: JobSpec) -> ActorResources:
        return ActorResources(num_cpus=1, num_gpus=self.gpus)

    def nodes_without(self, path: str) -> list[str]:
        return self.blind

    def tables(
        self,
        shards: Sequence[Shard],
        spec: JobSpec,
        model: ResolvedModel | None,
        resources: ActorResources,
    ) -> GivenTables:
        self.asked.append([shard.uri[-5] for shard in shards])
        self.known.append(model)
        tables = self.passes[min(len(self.asked), len(self.passes)) - 1]
        return GivenTables(lambda: tables(shards), lambda: self.model)

    def cluster_load(self) -> ClusterLoad:
        return self.load

    def end_actor(self) -> None:
        self.ended += 1


@dataclass
class Begun:
    """A run of a plan of shards, named by a letter each."""

    run: Run
    plan: ShardPlan
    supervisor: RunSupervisor
    source: Source
    store: OutputStore

    def passes(self) -> Verdict:
        Passes(self.run, self.supervisor, pause_s=0).run()
        return settle_verdict(self.run.spec, self.supervisor)

    def parts(self, drivers: int) -> Verdict:
        Parts(self.run, self.supervisor, drivers, pause_s=0).run()
        return settle_verdict(self.run.spec, self.supervisor)


@contextmanager
def begun(
    spec: JobSpec,
    source: Source,
    shards: str = "abc",
    observe: Callable[[Progress], None] = lambda progress: None,
    known: ResolvedModel | None = MODEL,
    **limits: float,
) -> Iterator[Begun]:
    store = open_output(spec.output)
    infos = [ObjectInfo(uri=f"s3://in/{s}.tar", size_bytes=9, etag="e") for s in shards]
    plan = freeze_plan(store, list(map(shard_of, infos)))
    if known is not None:
        settle_record(store, spec, known)
    counts, ledger = Tally(), Ledger(store)
    lease = Lease(store, key=lease_key(), renew_s=0.02)
    lease.acquire()
    try:
        with StopRequest(store, lease.run_id, poll_s=0.02) as stop:
            run = Run(
                store=store,
                spec=spec,
                model=known,
                source=source,
                resources=source.open(spec),
            )
            pending = Pending.of(plan.shards, ledger)
            supervisor = RunSupervisor(
                store=store,
                settle_record=partial(settle_record, store, spec),
                lease=lease,
                stop=stop,
                outcomes=Outcomes(pending, ledger, counts),
                tally=counts,
                observe=observe,
                budget=Budget(**limits),
            )
            yield Begun(run, plan, supervisor, source, store)
    finally:
        lease.release()
