"""The plan of an output: made by the first run, compared with the inputs by later ones."""

import logging
from dataclasses import replace
from itertools import islice

from pipeline.dataset.dataset import read_record
from pipeline.dataset.layout import ANNOTATIONS, FAILURES, RECORD_KEY, plan_key
from pipeline.dataset.listings import StoredListings
from pipeline.dataset.shards import ShardPlan, extend_plan, freeze_plan, load_plan
from pipeline.errors import InputMissing, SpecError
from pipeline.plan.cutting import cut
from pipeline.plan.discovery import discover
from pipeline.plan.drift import PlanDrift, beyond, drift_of, nothing_like
from pipeline.spec.job import JobSpec
from pipeline.spec.partition import WHOLE
from pipeline.storage import OutputStore
from pipeline.storage.ignored import HIDDEN, Ignored, ignored_in_one_line

# Options that the plan depends on.
_OPTIONS_OF_PLAN = (
    *("input", "input_format", "image_column", "image_member", "include", "exclude"),
    "samples_per_shard",
)

_log = logging.getLogger(__name__)


def settle_plan(store: OutputStore, spec: JobSpec) -> ShardPlan:
    """Return the frozen plan; make it if there is none. Log how the inputs differ from it.

    A plan without commits is replaced if it was made for another input or kind. Raises
    InputMissing, InputUnreadable; SpecError if the output belongs to another input.
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
            raise InputMissing(f"{spec.input} names no images; check INPUT")
        return replace(freeze_plan(store, parts.shards), ignored=parts.ignored)
    drift = drift_of(plan, found, listings)
    if not drift.kept and drift.new and not spec.extend:
        raise SpecError(
            f"{store.uri} was made from other inputs ({plan.shards[0].uri}, ...), none of which is "
            f"under {spec.input}; use another output, or add these inputs to it with --extend"
        )
    _report(drift, is_extending=spec.extend)
    _say_ignored(found.ignored)
    if spec.extend:
        parts = cut(beyond(plan, found, listings), spec, listings)
        plan = extend_plan(store, plan, parts.shards)
    return replace(plan, ignored=found.ignored)


def _may_start_over(store: OutputStore, spec: JobSpec) -> bool:
    """Return whether nothing depends on the plan: no commit, no run on another partition."""
    return spec.partition == WHOLE and not spec.extend and not store.list(ANNOTATIONS)


def _is_for_another(plan: ShardPlan, store: OutputStore, spec: JobSpec) -> bool:
    """Return whether the plan was made for another input or kind than that of `spec`."""
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
    """Remove a plan, its first generation last: after an interruption, the rest is still a plan."""
    _log.warning("%s has no commits, so its plan is replaced", store.uri)
    store.delete(RECORD_KEY)
    for key in store.list(FAILURES):
        store.delete(key)
    for generation in reversed(range(plan.generations)):
        store.delete(plan_key(generation))
    for key in {shard.listing for shard in plan.shards if shard.listing is not None}:
        store.delete(key)


def _say_ignored(ignored: tuple[Ignored, ...]) -> None:
    """Log ignored files, as a warning unless they are bookkeeping."""
    is_worth_a_look = any(each.reason != HIDDEN for each in ignored)
    level = logging.WARNING if is_worth_a_look else logging.INFO
    _log.log(level, "ignored: %s", ignored_in_one_line(ignored))


def _report(drift: PlanDrift, *, is_extending: bool) -> None:
    for name, uris, remedy in (
        ("new", drift.new, "" if is_extending else "; add them to the plan with --extend"),
        ("changed since the plan", drift.changed, "; they fail unless already committed"),
        ("vanished since the plan", drift.vanished, "; they fail unless already committed"),
    ):
        if uris:
            some = ", ".join(islice(uris, 3))
            _log.warning("%d inputs are %s%s (%s ...)", len(uris), name, remedy, some)
