"""Generation by Hugging Face's `generate`, with raw scores: the oracle of the engine's tests."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from kosmos2_core.annotation import FinishReason
from kosmos2_core.checkpoint.load import IMAGE_POSITIONS, Checkpoint
from kosmos2_core.engine.sampling.scores import TokenScorer
from kosmos2_core.errors import NonFiniteLogits
from kosmos2_core.grounding.parser import TokenScore
from kosmos2_core.prompts.tasks import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedTokens:
    """The generated tokens of one image, end of sequence included, and their raw scores."""

    token_ids: tuple[int, ...]
    scores: tuple[TokenScore, ...]
    finish_reason: FinishReason


@torch.inference_mode()
def embed_images(checkpoint: Checkpoint, pixels: np.ndarray) -> Tensor:
    """uint8 [B, 3, 224, 224] -> image embeddings [B, 64, D] for `generate`."""
    model = checkpoint.model
    hidden = model.vision_model(checkpoint.normalised(torch.from_numpy(pixels)))[0]
    features = normalize(model.vision_model.model.post_layernorm(hidden), dim=-1)
    embeds: Tensor = model.image_to_text_projection(features)[0]
    return embeds


@torch.inference_mode()
def generate(
    checkpoint: Checkpoint, image_embeds: Tensor, prompt_ids: Sequence[int], task: Task
) -> list[GeneratedTokens]:
    """Greedy continuation of one prompt for a batch of images [B, 64, D].

    All rows have one prompt, so nothing is padded: left padding decodes wrongly in this
    version of transformers. Raises NonFiniteLogits.
    """
    output = run_generate(
        checkpoint,
        image_embeds,
        prompt_ids,
        max_new_tokens=task.max_new_tokens,
        output_logits=True,  # raw: before the n-gram ban
        return_dict_in_generate=True,
    )
    tokens = output.sequences[:, len(prompt_ids) :]  # [B, T]
    logits = torch.stack(output.logits, dim=1)  # [B, T, V]
    scorer = TokenScorer(
        rows=logits.shape[-1],
        first_location=checkpoint.vocabulary.first_location,
        device=checkpoint.device,
    )
    logprobs, masses = scorer(logits, tokens)
    eos = checkpoint.processor.tokenizer.eos_token_id
    return [
        _generation(*row, eos)
        for row in zip(tokens.tolist(), logprobs.tolist(), masses.tolist(), strict=True)
    ]


@torch.inference_mode()
def run_generate(
    checkpoint: Checkpoint, image_embeds: Tensor, prompt_ids: Sequence[int], **options: Any
) -> Any:
    """What transformers' `generate` gives, greedy, for one prompt; `options` go to it."""
    ids = torch.tensor([prompt_ids], device=checkpoint.device).expand(len(image_embeds), -1)
    return checkpoint.model.text_model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        image_embeds=image_embeds,
        image_embeds_position_mask=_image_positions(ids),
        no_repeat_ngram_size=checkpoint.no_repeat_ngram_size,
        do_sample=False,
        num_beams=1,
        use_cache=True,
        **options,
    )


def _image_positions(ids: Tensor) -> Tensor:
    mask = torch.zeros_like(ids)
    mask[:, IMAGE_POSITIONS] = 1
    return mask


def _generation(
    tokens: list[int], logprobs: list[float], masses: list[float], eos: int
) -> GeneratedTokens:
    is_finished = eos in tokens
    length = tokens.index(eos) + 1 if is_finished else len(tokens)
    if not np.isfinite(logprobs[:length]).all():
        raise NonFiniteLogits("the model's probabilities are not finite; try --dtype float32")
    scores = (TokenScore(logprob=p, mass=m) for p, m in zip(logprobs, masses, strict=True))
    return GeneratedTokens(
        token_ids=tuple(tokens[:length]),
        scores=tuple(scores)[:length],
        finish_reason="eos" if is_finished else "length",
    )
