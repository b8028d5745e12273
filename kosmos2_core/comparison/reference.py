"""Hugging Face's own model of a checkpoint, over the same weights."""

from dataclasses import replace

from transformers import Kosmos2ForConditionalGeneration

from kosmos2_core.checkpoint.load import Checkpoint


def with_reference_model(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint whose `model` is Hugging Face's, which shares the weights with it."""
    if isinstance(checkpoint.model, Kosmos2ForConditionalGeneration):
        return checkpoint
    model = Kosmos2ForConditionalGeneration.from_pretrained(
        None,
        config=checkpoint.model.config,
        state_dict=checkpoint.model.state_dict(),
        dtype=checkpoint.dtype,
    )
    return replace(checkpoint, model=model.to(checkpoint.device).eval())
