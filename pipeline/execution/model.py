"""What `auto` and names come to on the machine that runs the model."""

from kosmos2_core.annotator import Annotator
from pipeline.spec.identity import ResolvedModel
from pipeline.spec.job import JobSpec


def load_annotator(spec: JobSpec) -> Annotator:
    """Raises CheckpointError."""
    return Annotator.from_pretrained(
        spec.model,
        device=spec.device,
        dtype=spec.dtype,
        no_repeat_ngram_size=spec.no_repeat_ngram_size,
        ngram_mode=spec.ngram_mode,
        grammar=spec.grammar,
        slots=spec.slots,
        verify_boxes=spec.verify_boxes,
        cuda_graph=spec.cuda_graph,
        tasks=[use.task for use in spec.tasks],
    )


def resolved_model(annotator: Annotator) -> ResolvedModel:
    checkpoint = annotator.checkpoint
    return ResolvedModel(
        id=checkpoint.provenance.id,
        commit=checkpoint.provenance.commit,
        weights_digest=checkpoint.provenance.weights_digest,
        device=checkpoint.device.type,
        dtype=checkpoint.dtype_name,
        no_repeat_ngram_size=checkpoint.no_repeat_ngram_size,
        ngram_mode=annotator.ngram_mode,
        slots=annotator.slots,
        memory_bytes=annotator.memory_bytes,
    )
