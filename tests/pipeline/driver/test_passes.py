"""The passes of a run, with tables from here instead of Ray."""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import count
from threading import Event

import pyarrow as pa
import pytest

from pipeline.costs.actor_time import total_time
from pipeline.dataset.dataset import read_record
from pipeline.dataset.layout import SUCCESS_KEY, annotations_key, lease_key, stop_key
from pipeline.dataset.ledger import Ledger
from pipeline.dataset.shards import Shard
from pipeline.driver import passes, tally
from pipeline.driver.passes import FRUITLESS_PASSES, Passes
from pipeline.driver.preflight import open_source
from pipeline.driver.stall import StallPolicy
from pipeline.errors import LeaseLost, PassBroke, SpecError, Stalled, WrongIdentity
from pipeline.execution.resources import ActorResources, ClusterLoad
from pipeline.exit_codes import ExitCode
from pipeline.progress import Progress
from pipeline.spec.identity import identity_of
from pipeline.spec.job import JobSpec
from tests.support.committing import shard_table
from tests.support.passes import FREE, SAMPLES, Source, begun, broken, nothing, whole
from tests.support.tars import MODEL, a_shard, annotated_row, annotated_table, end_row


def test_one_pass_commits_what_comes_and_says_success(spec: JobSpec) -> None:
    with begun(spec, Source()) as job:
        verdict = job.passes()
        assert (verdict.exit_code, verdict.failures) == (ExitCode.DONE, ())
        assert job.source.asked == [["a", "b", "c"]]
        assert Ledger(job.store).totals().annotated == 3 * SAMPLES
        assert job.store.list("") == ["_SUCCESS.json", "job.json"]
        progress = verdict.progress
        assert (progress.shards_done, progress.images_annotated) == (3, 3 * SAMPLES)


def test_what_reading_took_counts_also_if_the_end_of_a_shard_comes_alone(
    spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parted(shards: Sequence[Shard]) -> Iterator[pa.Table]:
        for shard in shards:
            yield annotated_table([annotated_row(shard, i) for i in range(SAMPLES)])
            yield annotated_table([end_row(shard, SAMPLES, read_s=3.0, cpu_s=6.0)])

    monkeypatch.setattr(tally, "_LOAD_EVERY_S", 0)
    with begun(spec, Source(passes=(parted,))) as job:
        load = job.passes().progress.load
        assert load.readers == 3  # of four CPUs, an actor has one
        assert load.readers_busy
        assert load.reader_cores == pytest.approx(2 * load.readers_busy)


def test_the_next_pass_does_only_what_is_left(spec: JobSpec) -> None:
    def breaks_off(shards: Sequence[Shard]) -> Iterator[pa.Table]:
        yield shard_table(shards[0], SAMPLES)
        yield annotated_table([annotated_row(shards[1], 0)])  # one sample of two
        raise PassBroke("a node went away")

    source = Source([breaks_off, whole])
    with begun(spec, source) as job:
        assert job.passes().exit_code is ExitCode.DONE
        assert source.asked == [["a", "b", "c"], ["b", "c"]]
        assert Ledger(job.store).failed(set()) == {}


def test_tables_that_come_again_count_once(spec: JobSpec) -> None:
    def twice(shards: Sequence[Shard]) -> Iterator[pa.Table]:
        for shard in shards:
            yield from [annotated_table([annotated_row(shard, 0)])] * 2
            yield from [annotated_table([annotated_row(shard, 1), end_row(shard, SAMPLES)])] * 2

    with begun(spec, Source([twice])) as job:
        assert job.passes().progress.images_annotated == 3 * SAMPLES
        assert Ledger(job.store).totals().annotated == 3 * SAMPLES


def test_passes_that_commit_nothing_end_the_run_and_are_recorded(spec: JobSpec) -> None:
    with begun(spec, Source([nothing])) as job:
        verdict = job.passes()
        assert verdict.exit_code is ExitCode.SHARDS_FAILED
        assert len(job.source.asked) == FRUITLESS_PASSES
        assert SUCCESS_KEY not in job.store.list("")


def test_a_pass_that_commits_something_gives_three_more(spec: JobSpec) -> None:
    def one(shards: Sequence[Shard]) -> Iterator[pa.Table]:
        return whole(shards[:1])

    source = Source([nothing, nothing, one, nothing, nothing, one, broken])
    with begun(spec, source) as job:
        job.passes()
        assert [len(each) for each in source.asked] == [3, 3, 3, 2, 2, 2, 1, 1, 1]


def test_what_another_try_will_not_mend_is_not_tried_again(spec: JobSpec) -> None:
    def fails(shards: Sequence[Shard]) -> Iterator[pa.Table]:
        yield annotated_table([end_row(shards[0], 0, error_type="input_changed", message="m")])
        yield annotated_table(
            [end_row(shards[1], 0, error_type="storage", message="m", retriable=True)]
        )
        yield from whole(shards[2:])

    with begun(spec, Source([fails, whole])) as job:
        verdict = job.passes()
        assert job.source.asked == [["a", "b", "c"], ["b"]]
        assert verdict.exit_code is ExitCode.SHARDS_FAILED
        assert [failed.error_type for failed in verdict.failures] == ["input_changed"]
        [failure] = Ledger(job.store).failed(set()).values()
        assert (failure.error_type, failure.attempts) == ("input_changed", 1)


def test_lack_of_memory_in_an_actor_ends_the_run_at_once(spec: JobSpec) -> None:
    said = "7 slots: memory ran out; use fewer --slots than 7"

    def fails(shards: Sequence[Shard]) -> Iterator[pa.Table]:
        yield from whole(shards[:1])
        yield annotated_table([end_row(shards[1], 0, error_type="out_of_memory", message=said)])
        yield from whole(shards[2:])

    with begun(spec, Source([fails])) as job:
        verdict = job.passes()
        assert (verdict.exit_code, verdict.is_tripped) == (ExitCode.SHARDS_FAILED, True)
        assert job.source.asked == [["a", "b", "c"]]
        assert said in [failed.message for failed in verdict.failures]
        assert list(Ledger(job.store).failed(set())) == []  # no shard is to blame
        assert Ledger(job.store).totals().rejected == 0


def test_ten_shards_of_rejects_in_a_row_end_the_run(spec: JobSpec) -> None:
    def rejects(shards: Sequence[Shard]) -> Iterator[pa.Table]:
        return (shard_table(shard, 50, rejected=40) for shard in shards)

    strict = spec.model_copy(update={"max_reject_rate": 0.5})
    with begun(strict, Source([rejects]), "abcdefghijklmnop") as job:
        verdict = job.passes()
        assert (verdict.exit_code, verdict.is_tripped) == (ExitCode.SHARDS_FAILED, True)
        assert {failed.error_type for failed in verdict.failures} == {"too_many_rejects"}
        assert len(job.source.asked) == 1


def test_a_run_that_is_asked_to_stop_commits_what_is_ready(spec: JobSpec) -> None:
    def asks(shards: Sequence[Shard]) -> Iterator[pa.Table]:
        yield shard_table(shards[0], SAMPLES)
        yield annotated_table([annotated_row(shards[1], 0)])
        job.store.put(stop_key(job.supervisor.lease.run_id), b"")
        while True:  # whatever else would come
            time.sleep(0.01)
            yield annotated_table([])

    with begun(spec, Source([asks])) as job:
        verdict = job.passes()
        assert verdict.exit_code is ExitCode.STOPPED
        assert verdict.failures == ()  # what was in work is no failure
        assert Ledger(job.store).committed() == {job.plan.shards[0].shard_id}


def test_a_run_that_reaches_its_budget_commits_what_is_ready(
    spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passes, "_LOOK_S", 0.1)

    def costs(shards: Sequence[Shard]) -> Iterator[pa.Table]:
        yield shard_table(shards[0], SAMPLES)
        yield annotated_table([annotated_row(shards[1], 0)])
        while True:  # whatever else would come
            time.sleep(0.01)
            yield annotated_table([])

    with begun(spec, Source([costs], gpus=2), max_gpu_hours=1e-5) as job:
        verdict = job.passes()
        assert verdict.exit_code is ExitCode.STOPPED
        assert verdict.budget_reached.startswith("--max-gpu-hours 1e-05: GPUs were held for")
        assert verdict.failures == ()
        [done] = Ledger(job.store).summaries().values()
        assert done.shard_id == job.plan.shards[0].shard_id
        assert done.actor_time is not None
        assert done.actor_time.gpu_held_s == 2 * done.actor_time.held_s > 0
        beside = verdict.progress.actor_time.plus(done.actor_time, -1)
        assert asdict(beside) == pytest.approx(asdict(verdict.progress.open_time))


@pytest.mark.parametrize("limits", [{"max_gpu_hours": 1.0}, {"max_cost": 1, "gpu_hour_cost": 1}])
def test_a_budget_of_gpus_needs_gpus(spec: JobSpec, limits: dict[str, float]) -> None:
    limited = spec.model_copy(update=limits)
    with pytest.raises(SpecError, match="actors of this job run on CPUs"):
        open_source(Source(), limited, a_shard(), spec.output)


def test_what_a_run_costs_is_in_its_commits_and_the_rest_beside_them(spec: JobSpec) -> None:
    with begun(spec, Source(gpus=1)) as job:
        progress = job.passes().progress
        commits = Ledger(job.store).summaries().values()
        known = [commit.actor_time for commit in commits if commit.actor_time is not None]
        assert len(known) == 3
        total = total_time([*known, progress.open_time])
        assert asdict(total) == pytest.approx(asdict(progress.actor_time))


def test_what_several_drivers_cost_is_counted_together(spec: JobSpec) -> None:
    two = spec.model_copy(update={"actors": (2, 2)})
    with begun(two, Source(load=replace(FREE, actors=2), gpus=1)) as job:
        progress = job.parts(2).progress
        commits = Ledger(job.store).summaries().values()
        known = [commit.actor_time for commit in commits if commit.actor_time is not None]
        total = total_time([*known, progress.open_time])
        assert asdict(total) == pytest.approx(asdict(progress.actor_time))
        assert progress.actor_time.gpu_held_s > 0


def test_who_lost_the_lease_stops(spec: JobSpec) -> None:
    def endless(shards: Sequence[Shard]) -> Iterator[pa.Table]:
        job.store.put(lease_key(), b"another run's")
        while True:
            yield annotated_table([])

    with (
        begun(spec, Source([endless])) as job,
        pytest.raises(LeaseLost, match="let that run finish"),
    ):
        job.passes()


def test_a_run_without_rows_ends_and_says_what_it_waits_for(spec: JobSpec) -> None:
    over = Event()

    def waits(shards: Sequence[Shard]) -> Iterator[pa.Table]:
        over.wait(60)
        return iter(())

    full = ClusterLoad(cpus=2, free_cpus=0, gpus=0, free_gpus=0, actors=0)
    hasty = spec.model_copy(update={"stall_timeout_s": 0.1})
    with begun(hasty, Source([waits], load=full)) as job:
        try:
            with pytest.raises(
                Stalled, match=r"with 3 shards left: no actor could start.*resolve that"
            ):
                job.passes()
        finally:
            over.set()


def test_the_first_actor_says_what_the_model_is(spec: JobSpec) -> None:
    source = Source([broken, whole], model=MODEL)
    with begun(spec, source, known=None) as job:
        assert job.passes().exit_code is ExitCode.DONE
        record = read_record(job.store)
        assert record is not None
        assert (record.model, record.identity) == (MODEL, identity_of(spec, MODEL))
        assert source.known == [None, MODEL]


def test_a_model_that_does_not_load_ends_the_run_in_its_first_pass(spec: JobSpec) -> None:
    over = Event()

    def waits(shards: Sequence[Shard]) -> Iterator[pa.Table]:
        over.wait(60)
        return iter(())

    for known in (None, MODEL):
        source = Source([waits], model=SpecError("no such file"))
        with (
            begun(spec, source, known=known) as job,
            pytest.raises(SpecError, match="no such file"),
        ):
            job.passes()
        assert len(source.asked) == 1
    over.set()


def test_another_model_than_that_of_the_job_ends_the_run(spec: JobSpec) -> None:
    other = MODEL.model_copy(update={"weights_digest": "f" * 64})
    source = Source(model=other)
    with begun(spec, source) as job, pytest.raises(WrongIdentity, match="weights_digest"):
        job.passes()
    assert Ledger(job.store).committed() == set()


def test_a_pass_without_a_model_is_repeated_and_leaves_no_record(spec: JobSpec) -> None:
    source = Source([broken], model=None)
    with begun(spec, source, known=None) as job:
        assert job.passes().exit_code is ExitCode.SHARDS_FAILED
        assert len(source.asked) == FRUITLESS_PASSES
        assert read_record(job.store) is None


def test_a_run_can_be_stopped_while_its_model_loads(spec: JobSpec) -> None:
    over = Event()

    def stopped(shards: Sequence[Shard]) -> Iterator[pa.Table]:
        job.store.put(stop_key(job.supervisor.lease.run_id), b"")
        over.wait(60)
        return iter(())

    with begun(spec, Source([stopped], model=None), known=None) as job:
        assert job.passes().exit_code is ExitCode.STOPPED
        assert read_record(job.store) is None
    over.set()


def test_nothing_is_asked_of_nodes_that_do_not_see_the_input(spec: JobSpec) -> None:
    with begun(spec, Source(blind=["node-1"])) as job:
        first = job.plan.shards[0]
        local = replace(first, uri="file:///in/a.tar")
        with pytest.raises(SpecError, match=r"/in/a.tar does not exist on 1"):
            open_source(job.source, spec, local, job.store.uri)
        assert job.source.asked == []


def test_progress_is_observed_while_nothing_comes_too(spec: JobSpec) -> None:
    seen: list[Progress] = []
    over = Event()

    def observe(progress: Progress) -> None:
        seen.append(progress)
        if len(seen) == 2:
            over.set()

    def waits(shards: Sequence[Shard]) -> Iterator[pa.Table]:
        assert over.wait(60)
        yield from whole(shards)

    with begun(spec, Source([waits]), observe=observe) as job:
        assert job.passes().exit_code is ExitCode.DONE
    assert [each.shards_done for each in seen[:2]] == [0, 0]
    assert seen[-1].shards_done == 3


def test_commits_of_others_stay_and_are_not_counted_twice(spec: JobSpec) -> None:
    with begun(spec, Source()) as job:
        first = job.plan.shards[0]
        key = annotations_key(first.shard_id)

        def late(shards: Sequence[Shard]) -> Iterator[pa.Table]:
            job.store.create(key, b"another run's commit")
            return whole(shards)

        job.source.passes = [late]
        Passes(job.run, job.supervisor, pause_s=0).run()
        assert job.store.get(key).data == b"another run's commit"
        assert first.shard_id in job.supervisor.outcomes.committed
        assert first.shard_id not in Ledger(job.store).summarised()


# ---- what is done while nothing moves


@pytest.mark.parametrize(
    ("cpus", "actors", "starting", "ended"),
    [(2, 2, 0, 1), (2, 1, 1, 1), (3, 2, 0, 0), (1, 1, 0, 0)],
    ids=["all taken", "one starting", "room for a reader", "the only actor"],
)
def test_an_actor_goes_where_they_leave_no_cpu_to_a_reader(
    spec: JobSpec,
    cpus: int,
    actors: int,
    starting: int,
    ended: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    load = ClusterLoad(
        cpus=cpus, free_cpus=0, gpus=0, free_gpus=0, actors=actors, starting=starting
    )
    source = Source(load=load)
    with begun(spec, source) as job:
        resources = ActorResources(num_cpus=1, num_gpus=0)
        policy = StallPolicy(job.store, spec, source, resources, starved_s=0)
        for _ in count():
            policy.check(shards_left=3)
            if source.ended or source.ended == ended:
                break
        policy.note_rows()
    assert source.ended == ended
    assert len(caplog.records) == ended
