"""The differences between the inputs of today and the plan."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset.listings import Listings
from pipeline.dataset.shards import ShardPlan
from pipeline.plan.discovery import Found
from pipeline.schema import LISTING
from pipeline.spec.kinds import LISTED_KINDS
from pipeline.storage import ObjectInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanDrift:
    """URIs of inputs that differ; `kept` is the number of planned inputs that still exist."""

    new: tuple[str, ...]
    changed: tuple[str, ...]
    vanished: tuple[str, ...]
    kept: int = field(default=0, compare=False)


def nothing_like(plan: ShardPlan) -> Found:
    """Return an empty result, for inputs that no longer exist."""
    return Found(kind=plan.shards[0].kind if plan.shards else "webdataset")


def drift_of(plan: ShardPlan, found: Found, listings: Listings) -> PlanDrift:
    """Compare a plan with the inputs.

    Raises ObjectMissing, CorruptOutput for unreadable lists of images.
    """
    if found.kind not in LISTED_KINDS:
        return _drift_of_objects(plan, found.objects)
    planned, today = _planned(plan, listings, without=found.known), _today(found)
    etags = planned["etag"].take(pc.index_in(today["uri"], planned["uri"]))
    changed = today["uri"].filter(pc.fill_null(pc.not_equal(etags, today["etag"]), False))
    vanished = _without(planned["uri"], today["uri"])
    return PlanDrift(
        new=_texts(_without(today["uri"], planned["uri"])),
        changed=_texts(changed),
        vanished=_texts(vanished),
        kept=planned.num_rows - len(vanished) + len(found.known),
    )


def _drift_of_objects(plan: ShardPlan, objects: Sequence[ObjectInfo]) -> PlanDrift:
    today = {o.uri: o for o in objects}
    planned = {s.uri: s for s in plan.shards}
    return PlanDrift(
        new=tuple(uri for uri in today if uri not in planned),
        changed=tuple(uri for uri, s in planned.items() if uri in today and today[uri] != s.source),
        vanished=tuple(uri for uri in planned if uri not in today),
        kept=len(planned.keys() & today.keys()),
    )


def beyond(plan: ShardPlan, found: Found, listings: Listings) -> Found:
    """Return the inputs that the plan does not have."""
    if found.kind not in LISTED_KINDS:
        planned = {shard.uri for shard in plan.shards}
        return replace(found, objects=tuple(o for o in found.objects if o.uri not in planned))
    known = _planned(plan, listings)["uri"] if found.lists else pa.chunked_array([], pa.string())
    lists = (
        replace(
            each,
            rows=each.rows.filter(pc.invert(pc.is_in(each.rows["uri"], known.combine_chunks()))),
        )
        for each in found.lists
    )
    return replace(found, lists=tuple(each for each in lists if each.rows.num_rows))


def _planned(
    plan: ShardPlan, listings: Listings, without: frozenset[str] = frozenset()
) -> pa.Table:
    listed = (shard for shard in plan.shards if shard.uri not in without)
    keys = dict.fromkeys(shard.listing for shard in listed if shard.listing is not None)
    return _named([listings.whole(key) for key in keys])


def _today(found: Found) -> pa.Table:
    return _named([each.rows for each in found.lists])


def _named(tables: Sequence[pa.Table]) -> pa.Table:
    table = pa.concat_tables([LISTING.empty_table(), *tables]).select(["uri", "etag"])
    return table.filter(pc.is_valid(table["uri"])).combine_chunks()


def _without(values: pa.ChunkedArray, known: pa.ChunkedArray) -> pa.ChunkedArray:
    return values.filter(pc.invert(pc.is_in(values, known.combine_chunks())))


def _texts(values: pa.ChunkedArray) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values.to_pylist()))
