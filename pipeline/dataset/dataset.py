"""A job on its output: the plan and `job.json`, made by the first run, checked by later ones."""

import json
import logging
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import islice

from pydantic import ValidationError

from pipeline.dataset.layout import plan_key
from pipeline.dataset.ledger import Totals
from pipeline.dataset.listings import StoredListings
from pipeline.dataset.shards import ShardPlan, extend_plan, freeze_plan, load_plan
from pipeline.errors import AlreadyExists, InputMissing, ObjectMissing, SpecError, WrongIdentity
from pipeline.faults import fault
from pipeline.plan.cutting import cut
from pipeline.plan.discovery import discover
from pipeline.plan.drift import PlanDrift, beyond, drift_of, nothing_like
from pipeline.spec.identity import Identity, JobRecord, ResolvedModel, identity_of
from pipeline.spec.job import JobSpec
from pipeline.spec.partition import WHOLE
from pipeline.storage import OutputStore, StorageOptions, open_output
from pipeline.storage.ignored import HIDDEN, Ignored, ignored_in_one_line
from pipeline.version import DISTRIBUTION, our_version

RECORD_KEY = "job.json"
SUCCESS_KEY = "_SUCCESS.json"
ANNOTATIONS = "annotations/"
# Options that decide what a plan is of.
_OPTIONS_OF_PLAN = (
    *("input", "input_format", "image_column", "image_member", "include", "exclude"),
    "samples_per_shard",
)
_PACKAGES = ("torch", "transformers", "pillow", "simplejpeg", "ray", "pyarrow")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    store: OutputStore
    plan: ShardPlan
    record: JobRecord


def read_record(store: OutputStore) -> JobRecord | None:
    """Raises SpecError where another version of ours wrote it."""
    try:
        return JobRecord.model_validate_json(store.get(RECORD_KEY).data)
    except ObjectMissing:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        raise SpecError(
            f"{store.uri}/{RECORD_KEY} cannot be read by this version ({first['msg']}: "
            f"{'.'.join(map(str, first['loc']))}); use the version that made it, or another output"
        ) from error


def open_job(output: str, options: StorageOptions) -> Job:
    """A job that was begun before. Raises ObjectMissing where there is none."""
    store = open_output(output, options)
    record, plan = known_record(store), load_plan(store)
    if plan is None:
        raise _no_dataset(store, "plan/")
    return Job(store=store, plan=plan, record=record)


def known_record(store: OutputStore) -> JobRecord:
    """Raises ObjectMissing, SpecError."""
    record = read_record(store)
    if record is None:
        raise _no_dataset(store, RECORD_KEY)
    return record


def check_annotatable(store: OutputStore, record: JobRecord | None) -> None:
    """Raises SpecError for a dataset that was made of another one: there is nothing to annotate."""
    if record is not None and record.source is not None:
        by = record.identity.derived[-1].operation
        raise SpecError(
            f"{store.uri} was made of {record.source} by `kosmos2 {by}`; annotate that, and make "
            "this one again"
        )


def write_success(store: OutputStore, record: JobRecord, totals: Totals) -> None:
    """Say that every planned shard is committed."""
    body = {
        "fingerprint": record.fingerprint,
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        **asdict(totals),
    }
    store.put(SUCCESS_KEY, json.dumps(body, indent=2).encode())


def settle_plan(store: OutputStore, spec: JobSpec) -> ShardPlan:
    """The frozen plan; made now if there is none. Reports how the inputs differ from it.

    A plan of which nothing is committed is made again where it was made for another input or kind.

    Raises InputMissing, InputUnreadable, SpecError where the output belongs to another input.
    """
    plan, listings = load_plan(store), StoredListings(store)
    if plan is not None and _may_start_over(store, spec) and _is_for_another(plan, store, spec):
        _start_over(store, plan)
        plan = None
    try:
        found = discover(spec, plan=plan)
    except InputMissing:
        if plan is None:
            raise
        found = nothing_like(plan)
    if plan is None:
        parts = cut(found, spec, listings)
        _say_ignored(parts.ignored)
        if not parts.shards:
            raise InputMissing(f"{spec.input}: nothing to read: it names no images")
        return replace(freeze_plan(store, parts.shards), ignored=parts.ignored)
    drift = drift_of(plan, found, listings)
    if not drift.kept and drift.new and not spec.extend:
        raise SpecError(
            f"{store.uri} was made from other inputs ({plan.shards[0].uri}, ...), none of which is "
            f"under {spec.input}; use another output, or --extend to add these inputs to it"
        )
    _report(drift, is_extending=spec.extend)
    _say_ignored(found.ignored)
    if spec.extend:
        parts = cut(beyond(plan, found, listings), spec, listings)
        plan = extend_plan(store, plan, parts.shards)
    return replace(plan, ignored=found.ignored)


def _may_start_over(store: OutputStore, spec: JobSpec) -> bool:
    """Return whether nothing stands on the plan: no commit, no run on another part."""
    return spec.part == WHOLE and not spec.extend and not store.list(ANNOTATIONS)


def _is_for_another(plan: ShardPlan, store: OutputStore, spec: JobSpec) -> bool:
    """Return whether the plan was made for another input than `spec` has, or another kind."""
    record = read_record(store)
    if record is not None and any(
        getattr(record.spec, option) != getattr(spec, option) for option in _OPTIONS_OF_PLAN
    ):
        return True
    try:
        found = discover(spec)
    except InputMissing:
        return False
    if plan.shards and plan.shards[0].kind != found.kind:
        return True
    drift = drift_of(plan, found, StoredListings(store))
    return record is None and not drift.kept and bool(drift.new)


def _start_over(store: OutputStore, plan: ShardPlan) -> None:
    """Remove a plan, its first generation last: what is cut off here is a plan all the same."""
    _log.warning("%s: nothing is committed there: the plan is made again", store.uri)
    store.delete(RECORD_KEY)
    for key in store.list("failed/"):
        store.delete(key)
    for generation in reversed(range(plan.generations)):
        store.delete(plan_key(generation))
    for key in {shard.listing for shard in plan.shards if shard.listing is not None}:
        store.delete(key)


def settle_record(
    store: OutputStore,
    spec: JobSpec,
    resolve: Callable[[JobSpec], ResolvedModel],
    ignored: tuple[Ignored, ...] = (),
) -> JobRecord:
    """`job.json`, written now if there is none; `ignored` is what the plan left out.

    Raises WrongIdentity, naming what differs, where it was made with other settings.
    """
    record = read_record(store)
    model = resolve(spec)
    identity = identity_of(spec, model)
    if record is None:
        record = _write_record(store, spec, model, identity, ignored)
    check_identity(store, identity, record)
    return record


def check_identity(store: OutputStore, identity: Identity, record: JobRecord) -> None:
    if differences := identity.differences(record.identity):
        said = "; ".join(
            f"{name}: asked for {_brief(asked)}, there {_brief(there)}"
            for name, (asked, there) in differences.items()
        )
        raise WrongIdentity(
            f"{store.uri} holds annotations made in another way ({said}); use another output, or "
            "the settings in its job.json"
        )


def _no_dataset(store: OutputStore, missing: str) -> ObjectMissing:
    return ObjectMissing(f"{store.uri} holds no dataset of ours (no {missing}); check the name")


def _write_record(
    store: OutputStore,
    spec: JobSpec,
    model: ResolvedModel,
    identity: Identity,
    ignored: tuple[Ignored, ...],
) -> JobRecord:
    record = JobRecord(
        spec=spec,
        model=model,
        identity=identity,
        fingerprint=identity.fingerprint,
        software={
            DISTRIBUTION: our_version(),
            **{name: version(name) for name in _PACKAGES},
            "python": platform.python_version(),
        },
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        ignored=ignored,
    )
    fault("job.before_record")
    try:
        store.create(RECORD_KEY, record.model_dump_json(indent=2).encode())
    except AlreadyExists:
        winner = read_record(store)
        assert winner is not None, "a record that exists can be read"
        return winner
    return record


def _brief(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else text[:200] + "..."


def _say_ignored(ignored: tuple[Ignored, ...]) -> None:
    """Log it, as a warning (seen beside a progress bar) where it is more than bookkeeping."""
    is_worth_a_look = any(each.reason != HIDDEN for each in ignored)
    level = logging.WARNING if is_worth_a_look else logging.INFO
    _log.log(level, "ignored: %s", ignored_in_one_line(ignored))


def _report(drift: PlanDrift, *, is_extending: bool) -> None:
    for name, uris, remedy in (
        ("new", drift.new, "" if is_extending else "; not in the plan: --extend takes them in"),
        ("changed since the plan", drift.changed, "; they fail unless they are committed already"),
        ("vanished since the plan", drift.vanished, "; they fail unless committed already"),
    ):
        if uris:
            some = ", ".join(islice(uris, 3))
            _log.warning("%d inputs are %s%s (%s ...)", len(uris), name, remedy, some)
