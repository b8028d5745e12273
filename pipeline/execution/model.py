"""The model that actors load, and what `auto` and names resolve to on a node.

Modules that need torch are imported where they run; the driver, which imports this module, never
imports torch.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import ray
from ray.exceptions import GetTimeoutError, RayTaskError

from kosmos2_core.errors import CheckpointError
from pipeline.errors import SpecError, WrongIdentity
from pipeline.execution.annotate.images import Model
from pipeline.execution.resources import ActorResources
from pipeline.spec.identity import Identity, ResolvedModel, identity_of
from pipeline.spec.job import JobSpec

if TYPE_CHECKING:
    from kosmos2_core.annotator import Annotator


LoadModel = Callable[[JobSpec, Identity], Model]


def load_model(spec: JobSpec, identity: Identity) -> Model:
    """Load the job's own model. Raises WrongIdentity, CheckpointError."""
    from kosmos2_core.shared_annotator import SharedAnnotator

    annotator = load_annotator(spec)
    if identity_of(spec, resolved_model(annotator)) != identity:
        raise WrongIdentity(
            f"the checkpoint {spec.model} of this node is not the one that job.json names; put the "
            "same checkpoint on all nodes"
        )
    return SharedAnnotator(annotator)


def load_annotator(spec: JobSpec) -> "Annotator":
    """Load an annotator for the job. Raises CheckpointError."""
    from kosmos2_core.annotator import Annotator

    return Annotator.from_pretrained(
        spec.model,
        device=spec.device,
        dtype=spec.dtype,
        generation=spec.generation,
        tasks=[use.task for use in spec.tasks],
    )


def resolved_model(annotator: "Annotator") -> ResolvedModel:
    checkpoint, generation = annotator.checkpoint, annotator.generation
    return ResolvedModel(
        id=checkpoint.provenance.id,
        commit=checkpoint.provenance.commit,
        weights_digest=checkpoint.provenance.weights_digest,
        device=checkpoint.device.type,
        dtype=checkpoint.dtype_name,
        no_repeat_ngram_size=checkpoint.no_repeat_ngram_size,
        ngram_mode=generation.resolved_ngram_mode,
        slots=generation.slots,
        memory_bytes=annotator.memory_bytes,
    )


def probe_model(spec: JobSpec, resources: ActorResources, *, timeout_s: float) -> ResolvedModel:
    """Load the model once where the actors will, and describe it.

    Raises SpecError if it does not load, TimeoutError if loading does not end in time.
    """
    probe = ray.remote(_probe).options(**resources.options)
    try:
        found: ResolvedModel = ray.get(probe.remote(spec), timeout=timeout_s)
    except GetTimeoutError as error:
        raise TimeoutError from error
    except RayTaskError as error:
        if isinstance(error.cause, CheckpointError):
            raise SpecError(str(error.cause)) from error
        raise
    return found


def _probe(spec: JobSpec) -> ResolvedModel:
    return resolved_model(load_annotator(spec))
