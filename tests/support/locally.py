"""A run of `annotate` in this process: all of it but Ray, which tests/e2e have."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pytest
from pipeline.execution.resources import ActorResources

from kosmos2_core.shared_annotator import SharedAnnotator
from pipeline.dataset.shards import Shard
from pipeline.driver import run as runner
from pipeline.execution import annotate_actor as stages
from pipeline.execution.model import load_annotator, resolved_model
from pipeline.spec.identity import Identity, ResolvedModel
from pipeline.spec.job import JobSpec


def without_ray(patch: pytest.MonkeyPatch) -> None:
    """The stages are called one after the other, in place of Ray's graph of them."""
    patch.setattr(runner, "connect", lambda: None)
    patch.setattr(runner, "actor_resources", lambda spec: ActorResources(num_cpus=1, num_gpus=0))
    patch.setattr(runner, "nodes_without", lambda path: [])
    patch.setattr(runner, "probe_model", _probe)
    patch.setattr(runner, "annotated_tables", _tables)


def _probe(spec: JobSpec, resources: ActorResources, *, timeout_s: float) -> ResolvedModel:
    return resolved_model(load_annotator(spec))


def _load(spec: JobSpec, identity: Identity) -> SharedAnnotator:
    return SharedAnnotator(load_annotator(spec))


def _tables(
    shards: Sequence[Shard], spec: JobSpec, identity: Identity, *_: Any, **__: Any
) -> Iterator[pa.Table]:
    annotate = stages.Annotate(spec, identity, _load)
    read = stages.ReadShard(spec)
    for shard in shards:
        for table in read(pa.Table.from_pylist([asdict(shard)])):
            yield annotate(table)
