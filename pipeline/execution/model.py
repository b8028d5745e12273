"""What `auto` and names come to on the machine that runs the model."""

from kosmos2_core.annotator import Annotator
from pipeline.spec.job import JobSpec, ResolvedModel


def load_annotator(spec: JobSpec) -> Annotator:
    """Raises CheckpointError."""
    return Annotator.from_pretrained(
        spec.model,
        device=spec.device,
        dtype=spec.dtype,
        generation=spec.generation,
        tasks=[use.task for use in spec.tasks],
    )


def resolved_model(annotator: Annotator) -> ResolvedModel:
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
