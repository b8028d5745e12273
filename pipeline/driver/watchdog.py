"""What a run that stands still waits for, in words."""

from collections.abc import Iterator

from pipeline.concurrency import TimedIterator
from pipeline.errors import PipelineError
from pipeline.execution.resources import ActorResources, ClusterLoad
from pipeline.spec.job import JobSpec
from pipeline.spec.resources import labels_text
from pipeline.storage import InputStore, OutputStore

_ANSWER_S = 30.0


def cause_of_stall(
    store: OutputStore,
    spec: JobSpec,
    load: ClusterLoad,
    resources: ActorResources,
    *,
    has_rows: bool,
) -> str:
    """The likeliest cause; `has_rows` says whether any came before they stopped coming."""
    if (silence := _silence(store, spec)) is not None:
        return silence
    if not load.actors:
        return _waiting_for_actors(load, resources)
    if not has_rows and spec.reader_label:
        return (
            "no reader could start: they want a CPU on a node with "
            f"{', '.join(labels_text(spec.reader_label))} "
            "(see `ray status`, and `ray start --labels`)"
        )
    if not has_rows and load.free_cpus < 1:
        return (
            f"no CPU is left for readers: the cluster's {load.cpus:g} are all taken, by "
            f"{load.actors} actors of this run and whatever else runs there (see `ray status`)"
        )
    return "a reader or an actor hangs (`ray status` and Ray's worker logs may say why)"


def _waiting_for_actors(load: ClusterLoad, resources: ActorResources) -> str:
    is_full = load.free_cpus < resources.num_cpus or load.free_gpus < resources.num_gpus
    if is_full and not load.starting:
        return f"no actor could start: each needs {_needs(resources)}, and {_free(load)}"
    there = (
        f"{load.starting} are loading it"
        if load.starting
        else f"there is room for one ({_needs(resources)})"
    )
    return (
        f"no actor has its model yet, though {there}: loading it takes longer than "
        "--stall-timeout, or its process dies (Ray's worker logs may say why)"
    )


def waiting_for_probe(load: ClusterLoad, resources: ActorResources) -> str:
    """The first load of the model, which itself holds what it needs once it is placed."""
    return (
        f"the model was not loaded within --stall-timeout: that takes {_needs(resources)}, and "
        f"{_free(load)} beside it"
    )


def _needs(resources: ActorResources) -> str:
    where = [*([resources.accelerator_type] if resources.accelerator_type else [])]
    where += [f"{key}={value}" for key, value in resources.labels.items()]
    return f"{resources.num_cpus:g} CPUs and {resources.num_gpus:g} GPUs" + (
        f" on a node with {', '.join(where)}" if where else ""
    )


def _free(load: ClusterLoad) -> str:
    return (
        f"of the cluster's {load.cpus:g} CPUs and {load.gpus:g} GPUs {load.free_cpus:g} and "
        f"{load.free_gpus:g} are free"
    )


def _silence(store: OutputStore, spec: JobSpec) -> str | None:
    def ask() -> Iterator[bool]:
        store.probe()
        InputStore(spec.input_storage).reach(spec.input)
        yield True

    try:
        is_answered = next(TimedIterator(ask).ticks(_ANSWER_S))
    except PipelineError as error:
        return f"the store does not answer as it should ({error})"
    return None if is_answered else f"the store did not answer within {_ANSWER_S:.0f} s"
