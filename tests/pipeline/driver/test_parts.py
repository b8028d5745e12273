"""A run with several drivers, whose processes are threads here, and die in place of an answer."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from threading import Event

import pyarrow as pa
import pytest

from pipeline.dataset.dataset import read_record, settle_record
from pipeline.dataset.layout import lease_key, stop_key
from pipeline.dataset.ledger import Ledger
from pipeline.dataset.shards import Shard, shard_of
from pipeline.driver.passes import FRUITLESS_PASSES, Passes
from pipeline.driver.supervision import parts
from pipeline.driver.supervision.parts import dealt
from pipeline.errors import LeaseLost, SpecError, Stalled, WorkerDied, WrongIdentity
from pipeline.execution.resources import Share
from pipeline.exit_codes import ExitCode
from pipeline.spec.identity import JobRecord, ResolvedModel
from pipeline.spec.job import JobSpec
from pipeline.storage import ObjectInfo
from tests.support.committing import shard_table
from tests.support.passes import FREE, SAMPLES, Begun, Source, begun, nothing, whole
from tests.support.tars import MODEL, annotated_row, annotated_table, end_row

SHARDS = "abcdefgh"


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_TICK_S", 0.01)


@pytest.fixture
def spec(spec: JobSpec) -> JobSpec:
    return spec.model_copy(update={"actors": (3, 7)})


def deaths(*at: int) -> Callable[[], bool]:
    """Return True at these of the answers of all parts, counted from 0."""
    answers = iter(range(1_000_000))
    return lambda: next(answers) in at


def check_whole(job: Begun) -> None:
    """All shards are committed, each once, and in the ledger's summaries."""
    ids = {shard.shard_id for shard in job.plan.shards}
    assert Ledger(job.store).committed() == ids == Ledger(job.store).summarised().keys()
    assert Ledger(job.store).totals().annotated == len(ids) * SAMPLES


def test_parts_share_shards_and_actors_and_make_one_dataset(spec: JobSpec) -> None:
    with begun(spec, Source(), SHARDS) as job:
        verdict = job.parts(3)
        check_whole(job)
        assert (verdict.exit_code, verdict.failures) == (ExitCode.DONE, ())
        assert sorted(name for part in job.source.asked for name in part) == list(SHARDS)
        assert sorted(map(len, job.source.asked)) == [2, 2, 4]
        pools = [(1, 3), (1, 2), (1, 2)]
        assert job.source.shares == [Share(actors=pool, of=7) for pool in pools]
        progress = verdict.progress
        assert (progress.shards_done, progress.images_annotated) == (8, 8 * SAMPLES)
        assert progress.load.drivers == 3


def test_the_record_of_the_job_has_all_of_its_actors(spec: JobSpec) -> None:
    def slow(shards: Sequence[Shard]) -> Iterator[pa.Table]:
        for shard in shards:
            Event().wait(0.05)
            yield shard_table(shard, SAMPLES)

    settled = list[ResolvedModel]()

    def settle(model: ResolvedModel) -> JobRecord:
        settled.append(model)
        return settle_record(job.store, spec, model)

    with begun(spec, Source([slow]), SHARDS, known=None) as job:
        job.supervisor.settle_record = settle
        assert job.parts(2).exit_code is ExitCode.DONE
        assert len(settled) == 4  # once by each driver, and once by the run for each
        record = read_record(job.store)
        assert record is not None
        assert (record.model, record.spec.actors) == (MODEL, (3, 7))
        check_whole(job)


def test_what_stays_incomplete_is_done_in_the_next_pass_of_its_part(spec: JobSpec) -> None:
    begun_with = set[str]()

    def breaks_off(shards: Sequence[Shard]) -> Iterator[pa.Table]:
        for shard in shards:
            if shard.shard_id in begun_with:
                yield shard_table(shard, SAMPLES)
            else:
                begun_with.add(shard.shard_id)
                yield annotated_table([annotated_row(shard, 0)])

    with begun(spec, Source([breaks_off]), SHARDS) as job:
        assert job.parts(2).exit_code is ExitCode.DONE
        check_whole(job)
        assert Ledger(job.store).failed(set()) == {}


@pytest.mark.parametrize("at", [(0,), (3,), (4, 5), (0, 9)])
def test_a_driver_that_dies_is_started_again_and_loses_nothing(
    spec: JobSpec, at: tuple[int, ...]
) -> None:
    def slow(shards: Sequence[Shard]) -> Iterator[pa.Table]:
        for shard in shards:
            yield shard_table(shard, SAMPLES)
            Event().wait(0.02)

    with begun(spec, Source([slow], dies=deaths(*at)), SHARDS) as job:
        verdict = job.parts(2)
        assert verdict.exit_code is ExitCode.DONE
        assert verdict.progress.shards_done == len(SHARDS)
        # What the dead one may still have committed is summarised by the next run.
        assert Ledger(job.store).committed() == {shard.shard_id for shard in job.plan.shards}
        assert Ledger(job.store).totals().annotated == len(SHARDS) * SAMPLES
        assert len(job.source.started) <= 2 + len(at)


def test_commits_that_a_driver_did_not_report_are_found(spec: JobSpec) -> None:
    def dies() -> bool:
        return len(Ledger(job.store).committed()) == len(SHARDS)

    with begun(spec, Source(dies=dies), SHARDS) as job:
        assert job.parts(1).exit_code is ExitCode.DONE
        check_whole(job)
        assert len(job.source.asked) == 1


def test_a_driver_that_dies_again_and_again_ends_the_run(spec: JobSpec) -> None:
    with (
        begun(spec, Source([nothing], dies=lambda: True), SHARDS) as job,
        pytest.raises(WorkerDied, match=r"driver 1 of 2 died 3 times in a row.*check the memory"),
    ):
        job.parts(2)
    assert len(job.source.started) <= 2 * FRUITLESS_PASSES


def test_drivers_that_are_asked_to_stop_commit_what_is_ready(spec: JobSpec) -> None:
    over = Event()

    def asks(shards: Sequence[Shard]) -> Iterator[pa.Table]:
        yield shard_table(shards[0], SAMPLES)
        yield annotated_table([annotated_row(shards[1], 0)])
        while not over.wait(0.01):
            if len(Ledger(job.store).committed()) == 2:
                job.store.put(stop_key(job.supervisor.lease.run_id), b"")
            yield annotated_table([])

    with begun(spec, Source([asks]), SHARDS) as job:
        verdict = job.parts(2)
        over.set()
        assert (verdict.exit_code, verdict.failures) == (ExitCode.STOPPED, ())
        firsts = {part.shards[0].shard_id for part in job.source.started}
        assert Ledger(job.store).committed() == firsts


def test_no_driver_is_started_again_after_a_request_to_stop(spec: JobSpec) -> None:
    def dies() -> bool:
        return job.supervisor.is_stopped

    def waits(shards: Sequence[Shard]) -> Iterator[pa.Table]:
        job.store.put(stop_key(job.supervisor.lease.run_id), b"")
        over.wait(60)
        return iter(())

    over = Event()
    with begun(spec, Source([waits], dies=dies), SHARDS) as job:
        assert job.parts(2).exit_code is ExitCode.STOPPED
        assert len(job.source.started) == 2
    over.set()


def test_a_run_that_lost_its_lease_ends_all_drivers(spec: JobSpec) -> None:
    over = Event()

    def endless(shards: Sequence[Shard]) -> Iterator[pa.Table]:
        yield shard_table(shards[0], SAMPLES)
        while not over.wait(0.01):
            if len(Ledger(job.store).committed()) == 2:
                job.store.put(lease_key(), b"another run's")
            yield annotated_table([])

    with begun(spec, Source([endless]), SHARDS) as job:
        with pytest.raises(LeaseLost, match="let that run finish"):
            job.parts(2)
        over.set()
        firsts = {part.shards[0].shard_id for part in job.source.started}
        assert Ledger(job.store).summarised().keys() == firsts


def test_a_part_that_ends_gives_its_actors_to_the_others(spec: JobSpec) -> None:
    over = Event()

    def tables(shards: Sequence[Shard]) -> Iterator[pa.Table]:
        waits_for = {"b": 4, "c": 7}.get(shards[0].uri[-5], 0)  # actors of the share
        while max([0, *resized()]) < waits_for and not over.wait(0.01):
            yield annotated_table([])
        yield from whole(shards)

    def resized() -> list[int]:
        return [most for share in job.source.resized for _, most in [share.actors]]

    with begun(spec, Source([tables]), SHARDS) as job:
        assert job.parts(3).exit_code is ExitCode.DONE
        over.set()
        assert Share(actors=(2, 4), of=7) in job.source.resized
        assert Share(actors=(3, 7), of=7) in job.source.resized


def test_a_part_that_stalls_stalls_the_run(spec: JobSpec) -> None:
    over = Event()

    def waits(shards: Sequence[Shard]) -> Iterator[pa.Table]:
        if "a" in shards[0].uri[-5]:
            over.wait(60)
        yield from whole(shards)

    hasty = spec.model_copy(update={"stall_timeout_s": 0.3})
    with begun(hasty, Source([waits], load=replace(FREE, actors=0, free_cpus=0)), SHARDS) as job:
        with pytest.raises(Stalled, match=r"^driver 1 of 2: .*with 5 shards left: no actor could"):
            job.parts(2)
        over.set()
        assert len(Ledger(job.store).summarised()) == 3  # the other driver's


def test_a_driver_that_does_not_answer_stalls_the_run(
    spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Silent:
        def __init__(self, make: object) -> None: ...

        def ask(self, question: object) -> "parts.Future[object]":
            return parts.Future()

        def end(self) -> None: ...

    monkeypatch.setattr(parts, "_LEAST_SILENT_S", 0.05)
    monkeypatch.setattr(parts, "_LAST_REPORTS_S", 0.05)
    hasty = spec.model_copy(update={"stall_timeout_s": 0.05})
    with begun(hasty, Source(), SHARDS) as job:
        job.source.start = Silent  # type: ignore[method-assign, assignment]
        with pytest.raises(Stalled, match=r"driver 1 of 2 has not answered for .*ray stack"):
            job.parts(2)


@pytest.mark.parametrize(
    ("model", "error", "said"),
    [
        (SpecError("no such file"), SpecError, r"^driver \d of 2: no such file"),
        (MODEL.model_copy(update={"weights_digest": "f" * 64}), WrongIdentity, "weights_digest"),
    ],
)
def test_a_model_that_cannot_be_used_ends_the_run(
    spec: JobSpec, model: object, error: type[Exception], said: str
) -> None:
    with begun(spec, Source(model=model), SHARDS) as job:  # type: ignore[arg-type]
        with pytest.raises(error, match=said):
            job.parts(2)
        assert Ledger(job.store).committed() == set()


def test_a_defect_of_a_driver_is_raised_as_it_is(spec: JobSpec) -> None:
    def defective(shards: Sequence[Shard]) -> Iterator[pa.Table]:
        raise ZeroDivisionError

    with begun(spec, Source([defective]), SHARDS) as job, pytest.raises(ZeroDivisionError):
        job.parts(2)


def test_ten_shards_of_rejects_in_a_row_end_all_drivers(spec: JobSpec) -> None:
    def rejects(shards: Sequence[Shard]) -> Iterator[pa.Table]:
        return (shard_table(shard, 50, rejected=40) for shard in shards)

    strict = spec.model_copy(update={"max_reject_rate": 0.5})
    with begun(strict, Source([rejects]), "abcdefghijklmnopqrst") as job:
        verdict = job.parts(2)
        assert (verdict.exit_code, verdict.is_tripped) == (ExitCode.SHARDS_FAILED, True)


def test_failures_of_parts_are_those_of_the_run(spec: JobSpec) -> None:
    def fails(shards: Sequence[Shard]) -> Iterator[pa.Table]:
        yield annotated_table([end_row(shards[0], 0, error_type="input_changed", message="m")])
        yield from whole(shards[1:])

    with begun(spec, Source([fails]), SHARDS) as job:
        verdict = job.parts(2)
        assert verdict.exit_code is ExitCode.SHARDS_FAILED
        assert [failed.error_type for failed in verdict.failures] == ["input_changed"] * 2
        assert {f.attempts for f in Ledger(job.store).failed(set()).values()} == {1}


def test_parts_that_commit_nothing_end_the_run(
    spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Passes.__init__, "__kwdefaults__", {"pause_s": 0})
    with begun(spec, Source([nothing]), "ab") as job:
        verdict = job.parts(2)
        assert verdict.exit_code is ExitCode.SHARDS_FAILED
        assert len(job.source.asked) == 2 * FRUITLESS_PASSES


def test_shards_are_dealt_by_their_bytes_and_the_actors_that_get_them() -> None:
    sizes = [700, 100, 100, 100, 500, 300, 200, 0, 0]
    shards = [
        shard_of(ObjectInfo(uri=f"s3://in/{number}.tar", size_bytes=size, etag="e"))
        for number, size in enumerate(sizes)
    ]
    parts_of = dealt(shards, [3, 1])
    assert sorted(shard.uri for part in parts_of for shard in part) == sorted(
        shard.uri for shard in shards
    )
    amounts = [sum(shard.size_bytes for shard in part) for part in parts_of]
    assert amounts == [1400, 600]
    assert all(list(part) == sorted(part, key=lambda shard: shard.uri) for part in parts_of)
