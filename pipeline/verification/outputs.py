"""Verification of a whole output: plan, commits, rejects, failures, summaries, and other files."""

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath

from pipeline.dataset.commit import Committed
from pipeline.dataset.layout import (
    ANNOTATIONS,
    DEDUP_ROUNDS,
    FAILURES,
    FILE_SUFFIXES,
    LEASES,
    LISTINGS,
    LOOKS,
    PLANS,
    RECORD_KEY,
    REJECTS,
    SUCCESS_KEY,
    SUMMARIES,
    annotations_key,
    plan_key,
    shard_of_rejects,
)
from pipeline.dataset.lease import Owner
from pipeline.dataset.ledger import Ledger, Totals, read_failure, read_summary
from pipeline.dataset.listings import StoredListings
from pipeline.dataset.shards import Shard, ShardPlan, read_generation
from pipeline.derived.deriving import derived_commit_id
from pipeline.derived.rounds import has_rounds, read_rounds
from pipeline.errors import CorruptOutput, InputMissing, ObjectMissing, SpecError
from pipeline.plan.discovery import discover
from pipeline.plan.drift import PlanDrift, drift_of, nothing_like
from pipeline.progress import ObserveShards
from pipeline.spec.identity import JobRecord
from pipeline.spec.job import JobSpec
from pipeline.storage import OutputStore
from pipeline.verification.commits import CheckedCommit, check_commit
from pipeline.verification.findings import Defect, Finding, reason_of

_READERS = 8  # each holds a file and its table in memory: some 50 MB
_BATCH = 256  # shards passed to the readers at a time
_FOLDERS = (
    *("", PLANS, ANNOTATIONS, REJECTS, FAILURES, SUMMARIES, LEASES, LISTINGS),
    *(DEDUP_ROUNDS, LOOKS),
)

Drift = Callable[[ShardPlan], PlanDrift]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The result of a verification.

    `running` names the holders of leases; their unfinished files are not judged. `totals` counts
    the commits that can be read. `inputs_new` is None unless the inputs were listed.
    """

    output: str
    fingerprint: str
    shards_planned: int
    shards_left: int
    shards_failed: int
    totals: Totals
    running: tuple[str, ...]
    inputs_new: int | None
    is_complete: bool  # every planned shard has a readable commit
    findings: tuple[Finding, ...]
    mended: tuple[Finding, ...] = ()
    commits: tuple[Committed, ...] = field(default=(), repr=False)


def verify_dataset(
    store: OutputStore,
    record: JobRecord,
    *,
    running: Sequence[Owner] = (),
    drift: Drift | None = None,
    observe: ObserveShards = lambda done, of: None,
) -> Report:
    """Read everything under `store` once; memory is bounded by the number of shards.

    `running` are writers that may be active meanwhile. Raises StorageError, and PipelineError if
    job.json or the inputs cannot be read.
    """
    return _Verification(store, record, running, drift, observe).report()


def drift_from(store: OutputStore, spec: JobSpec, uri: str) -> Drift:
    """Return a function that compares the plan with what is under `uri` now.

    The function raises StorageError, InputUnreadable.
    """

    def drift(plan: ShardPlan) -> PlanDrift:
        try:
            found = discover(spec, uri, plan)
        except InputMissing:
            found = nothing_like(plan)
        return drift_of(plan, found, StoredListings(store))

    return drift


class _Verification:
    def __init__(
        self,
        store: OutputStore,
        record: JobRecord,
        running: Sequence[Owner],
        drift: Drift | None,
        observe: ObserveShards,
    ) -> None:
        self._store = store
        self._record = record
        self._running = running
        self._drift = drift
        self._observe = observe
        self._findings: list[Finding] = []

    def report(self) -> Report:
        plan, is_whole = self._plan()
        planned = {shard.shard_id: shard for shard in plan.shards}
        # This precedes the list of commits: a later commit names a file that is not listed here.
        rejects = self._store.list(REJECTS)
        committed = sorted(Ledger(self._store).committed())
        commits: dict[str, Committed] = {}
        named: set[str] = set()
        for shard_id, checked in self._checked(committed, planned):
            self._findings += [
                finding
                for finding in checked.findings
                if is_whole or finding.defect is not Defect.COMMIT_UNPLANNED
            ]
            if checked.committed is not None:
                commits[shard_id] = checked.committed
            named.add(checked.rejects)
        self._rounds(commits)
        failed = self._failed(set(committed))
        if self._record.fingerprint != self._record.identity.fingerprint:
            self._find(
                Defect.JOB_INCONSISTENT, RECORD_KEY, "its fingerprint is not that of its identity"
            )
        self._strays()
        totals = Totals.of(commits.values())
        is_complete = is_whole and planned.keys() <= commits.keys()
        if not self._running:
            self._orphans(set(rejects) - named, planned.keys() - commits.keys())
            self._partials()
            self._ledger(commits)
            if is_whole:
                self._unplanned_lists({s.listing for s in plan.shards if s.listing})
                self._success(totals, is_complete=is_complete)
        inputs_new = self._inputs(plan)
        return Report(
            output=self._store.uri,
            fingerprint=self._record.fingerprint,
            shards_planned=len(planned),
            shards_left=len(planned.keys() - set(committed) - failed),
            shards_failed=len(failed & planned.keys()),
            totals=totals,
            running=tuple(owner.name for owner in self._running),
            inputs_new=inputs_new,
            is_complete=is_complete,
            findings=tuple(self._findings),
            commits=tuple(commits.values()),
        )

    def _plan(self) -> tuple[ShardPlan, bool]:
        """Read the plan as far as possible, and return whether it is complete."""
        names, damaged = self._store.list(PLANS), 0
        shards: dict[str, Shard] = {}
        for name in names:
            try:
                found = read_generation(self._store, name)
            except CorruptOutput as error:
                self._find(Defect.PLAN_DAMAGED, name, reason_of(error))
                damaged += 1
                continue
            twice = [shard.shard_id for shard in found if shard.shard_id in shards]
            if twice or len(found) > len({shard.shard_id for shard in found}):
                self._find(Defect.PLAN_INCONSISTENT, name, "it repeats shards of the plan")
            shards |= {shard.shard_id: shard for shard in found}
        wanted = [plan_key(number) for number in range(max(len(names), 1))]
        for name in sorted(set(wanted) - set(names)):
            self._find(Defect.PLAN_INCONSISTENT, name, "this generation does not exist")
        damaged += self._damaged_lists({s.listing for s in shards.values() if s.listing})
        is_whole = not damaged and names == wanted
        return ShardPlan(shards=tuple(shards.values()), generations=len(names)), is_whole

    def _damaged_lists(self, names: Collection[str]) -> int:
        """Count the damaged lists of images, which parts of the plan depend on."""
        damaged = 0
        for name in sorted(names):
            try:
                StoredListings(self._store).whole(name)
            except (ObjectMissing, CorruptOutput) as error:
                self._find(Defect.PLAN_DAMAGED, name, reason_of(error))
                damaged += 1
        return damaged

    def _unplanned_lists(self, planned: Collection[str]) -> None:
        for name in self._store.list(LISTINGS):
            if name.endswith(FILE_SUFFIXES[LISTINGS]) and name not in planned:
                self._find(Defect.LISTING_ORPHANED, name, "no shard of the plan uses it")

    def _rounds(self, commits: dict[str, Committed]) -> None:
        """Find commits of a deduplicated dataset that are not what its rounds settled."""
        if not has_rounds(self._record):
            return
        try:
            rounds = read_rounds(self._store)
        except (CorruptOutput, SpecError) as error:
            self._find(Defect.ROUND_DAMAGED, DEDUP_ROUNDS, reason_of(error))
            return
        settled = {
            shard_id: derived_commit_id(self._record, commit_id, each.settled)
            for each in rounds
            for shard_id, commit_id in each.commit_ids.items()
        }
        for shard_id, commit in commits.items():
            if settled.get(shard_id) != commit.commit_id:
                message = "it is not the commit that its round of `dedup` makes"
                self._find(Defect.WRONG_PROVENANCE, annotations_key(shard_id), message)

    def _checked(
        self, committed: Sequence[str], planned: dict[str, Shard]
    ) -> Iterator[tuple[str, CheckedCommit]]:
        def check(shard_id: str) -> CheckedCommit:
            return check_commit(self._store, self._record, shard_id, planned.get(shard_id))

        with ThreadPoolExecutor(_READERS, thread_name_prefix="verify") as pool:
            for start in range(0, len(committed), _BATCH):
                batch = committed[start : start + _BATCH]
                yield from zip(batch, pool.map(check, batch), strict=True)
                self._observe(start + len(batch), len(committed))

    def _failed(self, committed: Collection[str]) -> set[str]:
        """Return the shards that failed and are not committed."""
        failed = set()
        for name in self._store.list(FAILURES):
            shard_id = PurePosixPath(name).stem
            if shard_id in committed:
                self._find(Defect.FAILURE_OUTDATED, name, "the shard was committed later")
            elif read_failure(self._store.get(name).data) is None:
                self._find(Defect.FAILURE_DAMAGED, name, "it is not a failure record")
            else:
                failed.add(shard_id)
        return failed

    def _orphans(self, unnamed: Collection[str], pending: Collection[str]) -> None:
        """Find rejects files without a commit.

        A pending shard's commit may still come to name its file.
        """
        for name in sorted(unnamed):
            shard_id = shard_of_rejects(name)
            if shard_id is None:
                self._find(Defect.STRAY_FILE, name, "not one of the rejects files here")
            elif shard_id not in pending:
                self._find(Defect.REJECTS_ORPHANED, name, "no commit names it")

    def _partials(self) -> None:
        for folder in _FOLDERS:
            for name in self._store.partials(folder):
                self._find(Defect.PARTIAL_FILE, name, "left by a writer that died")

    def _strays(self) -> None:
        for folder, suffix in FILE_SUFFIXES.items():
            for name in self._store.list(folder):
                if not name.endswith(suffix):
                    self._find(Defect.STRAY_FILE, name, f"not one of the {suffix} files here")

    def _ledger(self, commits: dict[str, Committed]) -> None:
        for name in self._store.list(SUMMARIES):
            try:
                read_summary(name, self._store.get(name).data)
            except CorruptOutput as error:
                self._find(Defect.LEDGER_WRONG, name, reason_of(error))
        summarised = Ledger(self._store).summarised()
        wrong = [i for i, said in summarised.items() if i in commits and said != commits[i]]
        if wrong:
            message = f"it contradicts the commit of {wrong[0]}"
            self._find(Defect.LEDGER_WRONG, SUMMARIES, message, len(wrong))

    def _success(self, totals: Totals, *, is_complete: bool) -> None:
        if SUCCESS_KEY not in self._store.list(""):
            return
        try:
            said = json.loads(self._store.get(SUCCESS_KEY).data)
        except ValueError:
            said = {}
        expected = {"fingerprint": self._record.fingerprint, **asdict(totals)}
        if not is_complete:
            self._find(Defect.SUCCESS_WRONG, SUCCESS_KEY, "the dataset is not complete")
        elif not isinstance(said, dict) or expected.items() - said.items():
            self._find(Defect.SUCCESS_WRONG, SUCCESS_KEY, "its counts are not those of the commits")

    def _inputs(self, plan: ShardPlan) -> int | None:
        if self._drift is None:
            return None
        drift = self._drift(plan)
        for uri in drift.changed:
            self._find(Defect.INPUT_CHANGED, uri, "its size or ETag is no longer that of the plan")
        for uri in drift.vanished:
            self._find(Defect.INPUT_VANISHED, uri, "it no longer exists")
        return len(drift.new)

    def _find(self, defect: Defect, name: str, message: str, rows: int = 0) -> None:
        self._findings.append(Finding(defect=defect, name=name, message=message, rows=rows))
