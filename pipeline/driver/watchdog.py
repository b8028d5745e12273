"""The cause of a stall, described for the user."""

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
    """Return the likeliest cause. `has_rows` says whether any rows came before they stopped."""
    if (silence := _silence(store, spec)) is not None:
        return silence
    if not load.actors:
        return _waiting_for_actors(load, resources)
    if not has_rows and spec.reader_label:
        return (
            "no reader could start: readers need a CPU on a node with "
            f"{', '.join(labels_text(spec.reader_label))} "
            "(see `ray status`, and `ray start --labels`)"
        )
    if not has_rows and load.free_cpus < 1:
        return (
            f"no CPU is free for readers: {load.actors + load.others} actors of this run and other "
            f"programs use all {load.cpus:g} CPUs of the cluster (see `ray status`)"
        )
    return "a reader or an actor hangs (`ray status` and Ray's worker logs may say why)"


def _waiting_for_actors(load: ClusterLoad, resources: ActorResources) -> str:
    is_full = load.free_cpus < resources.num_cpus or load.free_gpus < resources.num_gpus
    if is_full and not load.starting:
        return f"no actor could start: each needs {_needs(resources)}, and {_free(load)}"
    there = (
        f"{load.starting} actors are loading it"
        if load.starting
        else f"the resources for one are free ({_needs(resources)})"
    )
    return (
        f"no actor has loaded its model yet, although {there}: loading takes longer than "
        "--stall-timeout, or the process dies (see Ray's worker logs)"
    )


def _needs(resources: ActorResources) -> str:
    where = [*([resources.accelerator_type] if resources.accelerator_type else [])]
    where += [f"{key}={value}" for key, value in resources.labels.items()]
    return f"{resources.num_cpus:g} CPUs and {resources.num_gpus:g} GPUs" + (
        f" on a node with {', '.join(where)}" if where else ""
    )


def _free(load: ClusterLoad) -> str:
    return (
        f"{load.free_cpus:g} of {load.cpus:g} CPUs and {load.free_gpus:g} of {load.gpus:g} GPUs "
        "are free"
    )


def _silence(store: OutputStore, spec: JobSpec) -> str | None:
    def ask() -> Iterator[bool]:
        store.probe()
        InputStore(spec.input_storage).reach(spec.input)
        yield True

    try:
        is_answered = next(TimedIterator(ask).ticks(_ANSWER_S))
    except PipelineError as error:
        return f"the store gives no valid answer ({error})"
    return None if is_answered else f"the store did not answer within {_ANSWER_S:.0f} s"
