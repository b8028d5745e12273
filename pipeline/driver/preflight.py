"""Checks that precede reading and annotating."""

import logging
from collections.abc import Callable

from pipeline.dataset.dataset import check_annotatable, read_record
from pipeline.dataset.shards import Shard
from pipeline.driver.source import TableSource
from pipeline.driver.watchdog import waiting_for_probe
from pipeline.errors import SpecError, Stalled
from pipeline.execution.resources import ActorResources
from pipeline.spec.identity import JobRecord, ResolvedModel
from pipeline.spec.job import JobSpec
from pipeline.storage import InputStore, OutputStore, open_output
from pipeline.storage.objects import Location

_log = logging.getLogger(__name__)


def reach_stores(spec: JobSpec) -> OutputStore:
    """Open the output, once input and output answer. Raises StorageError, SpecError."""
    store = open_output(spec.output, spec.output_storage)
    InputStore(spec.input_storage).reach(spec.input)
    InputStore(spec.output_storage).reach(spec.output)
    check_annotatable(store, read_record(store))
    store.probe()
    return store


def model_resolver(
    source: TableSource, record: JobRecord | None
) -> Callable[[JobSpec], ResolvedModel]:
    """Return a function that resolves the model. An existing job already knows its model.

    Each actor checks that it has the same one.
    """

    def resolve(spec: JobSpec) -> ResolvedModel:
        if record is not None and record.asks_for_model_of(spec):
            return record.model
        return resolve_model(source, spec, source.open(spec))

    return resolve


def resolve_model(source: TableSource, spec: JobSpec, resources: ActorResources) -> ResolvedModel:
    """Load the model once. Raises SpecError if it does not load, Stalled."""
    try:
        found = source.resolve(spec, resources)
    except TimeoutError as error:
        raise Stalled(waiting_for_probe(source.cluster_load(), resources)) from error
    _log.info(
        "%s on %s: %s slots, about %.1f GiB of memory per actor",
        found.id,
        found.device,
        found.slots,
        (found.memory_bytes or 0) / (1 << 30),
    )
    return found


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
