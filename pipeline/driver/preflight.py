"""Checks that precede reading and annotating."""

import logging

from kosmos2_core.errors import CheckpointError
from pipeline.dataset.dataset import (
    check_annotatable,
    check_same_answers,
    known_record,
    read_record,
    settle_record,
)
from pipeline.dataset.shards import Shard
from pipeline.driver.source import TableSource
from pipeline.errors import SpecError
from pipeline.execution.resources import ActorResources
from pipeline.spec.identity import JobRecord, ResolvedModel, identity_of
from pipeline.spec.job import JobSpec
from pipeline.spec.resources import actors_text
from pipeline.storage import InputStore, OutputStore, open_output
from pipeline.storage.ignored import Ignored
from pipeline.storage.objects import Location

_log = logging.getLogger(__name__)


def reach_stores(spec: JobSpec) -> OutputStore:
    """Open the output, once input and output answer. Raises StorageError, SpecError."""
    store = open_output(spec.output, spec.output_storage)
    InputStore(spec.input_storage).reach(spec.input)
    InputStore(spec.output_storage).reach(spec.output)
    check_annotatable(store, read_record(store))
    for uri in spec.reuse:
        known_record(open_output(uri, spec.output_storage))
    store.probe()
    return store


def settle_job(
    store: OutputStore,
    spec: JobSpec,
    model: ResolvedModel,
    ignored: tuple[Ignored, ...] = (),
) -> JobRecord:
    """Return the job record, as `settle_record`, if its answers may be taken from `spec.reuse`.

    Raises WrongIdentity.
    """
    identity = identity_of(spec, model)
    for uri in spec.reuse:
        check_same_answers(identity, open_output(uri, spec.output_storage))
    return settle_record(store, spec, model, ignored)


def known_model(
    spec: JobSpec, record: JobRecord | None, *, is_work_left: bool
) -> ResolvedModel | None:
    """Return the model of an existing job. None if an actor must load it to say what it is.

    If no work is left, no actor will: the model that `spec` names is then compared by its files.
    Raises SpecError if they cannot be used.
    """
    if record is None:
        return None
    if record.asks_for_model_of(spec):
        return record.model
    return None if is_work_left else _unloaded_model(spec, record.model)


def _unloaded_model(spec: JobSpec, stored: ResolvedModel) -> ResolvedModel:
    """Return the stored model, with what `spec` asks for in its place."""
    from pipeline.models.staging import stage_model

    try:
        digest = stage_model(spec.model).weights_digest()
    except CheckpointError as error:
        raise SpecError(str(error)) from error
    size = spec.no_repeat_ngram_size
    return stored.model_copy(
        update={
            "weights_digest": digest,
            "dtype": stored.dtype if spec.dtype == "auto" else spec.dtype,
            "no_repeat_ngram_size": stored.no_repeat_ngram_size if size is None else size,
            "ngram_mode": spec.generation.resolved_ngram_mode,
        }
    )


def open_source(source: TableSource, spec: JobSpec, first: Shard, output: str) -> ActorResources:
    """Open the source, check the nodes, and return what each actor requests.

    `first` is one of the shards to read. This is done once in a run: a node that is lost later may
    come back, and the stall policy decides when it does not. Raises SpecError if there are not
    enough resources, if GPU hours are limited and actors have none, or if a node cannot see a path
    that it would read.
    """
    resources = source.open(spec)
    if (spec.max_gpu_hours is not None or spec.max_cost is not None) and not resources.num_gpus:
        raise SpecError(
            "--max-gpu-hours and --max-cost count GPUs, but the actors of this job run on CPUs; "
            "leave them out, or choose --device cuda on a cluster with GPUs"
        )
    _log.info("actors: %s, each requests %s", actors_text(spec.actors), resources)
    check_nodes_see(source, first, output)
    return resources


def check_nodes_see(source: TableSource, shard: Shard, output: str) -> None:
    """Raise SpecError if a node would read a local path that it does not have.

    The paths are the input and, for listed images, their list, which is in the output.
    """
    read = {"input": shard.uri}
    if shard.listing is not None:
        read["output"] = f"{output}/{shard.listing}"
    for what, uri in read.items():
        at = Location.of(uri)
        if at.scheme == "file" and (blind := source.nodes_without(at.path)):
            raise SpecError(
                f"{at.uri} does not exist on {len(blind)} nodes of the cluster ({blind[0]}, ...); "
                f"put the {what} where every node can read it, such as s3:// or a shared mount"
            )
