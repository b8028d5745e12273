"""Generation by Hugging Face's own classes: what the engine is measured and tested against.

Known defects of transformers are looked for by what the classes do, whatever their version says.
"""

from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import Kosmos2ForConditionalGeneration

from kosmos2_core.checkpoint.load import IMAGE_POSITIONS, Checkpoint
from kosmos2_core.comparison.reference import with_reference_model
from kosmos2_core.errors import WrongOracle

# Differences above this share of the largest value are no rounding, in half precision neither.
_ROUNDING = 0.05
_PADDING = 3  # tokens on the left, in the trial


class Oracle:
    """Hugging Face's model of a checkpoint, greedy, on one prompt for many images.

    Raises WrongOracle where the resampler is causal: it then judges nothing.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = with_reference_model(checkpoint)
        refuse_causal_resampler(self.checkpoint.model)

    @torch.inference_mode()
    def embed_images(self, pixels: np.ndarray) -> Tensor:
        """uint8 [B, 3, 224, 224] -> image embeddings [B, 64, D] for `generate`."""
        model = self.checkpoint.model
        hidden = model.vision_model(self.checkpoint.normalised(torch.from_numpy(pixels)))[0]
        features = normalize(model.vision_model.model.post_layernorm(hidden), dim=-1)
        embeds: Tensor = model.image_to_text_projection(features)[0]
        return embeds

    @torch.inference_mode()
    def generate(self, image_embeds: Tensor, prompt_ids: Sequence[int], **options: Any) -> Any:
        """Return what transformers' `generate` gives for one prompt and images [B, 64, D].

        `options` go to it. All rows have one prompt, so nothing needs padding. Raises WrongOracle
        for a prompt that is padded on the left, where that shifts the positions of the answer.
        """
        model = self.checkpoint.model.text_model
        if prompt_ids[0] == model.config.pad_token_id and self.shifts_padded_rows:
            raise WrongOracle(
                f"{_transformers()} numbers the positions of generated tokens wrongly in rows with "
                "left padding; give one prompt without padding per call"
            )
        ids = torch.tensor([prompt_ids], device=self.checkpoint.device)
        ids = ids.expand(len(image_embeds), -1)
        positions = torch.zeros_like(ids)
        positions[:, IMAGE_POSITIONS] = 1
        return model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            image_embeds=image_embeds,
            image_embeds_position_mask=positions,
            no_repeat_ngram_size=self.checkpoint.no_repeat_ngram_size,
            do_sample=False,
            num_beams=1,
            use_cache=True,
            **options,
        )

    @torch.inference_mode()
    def logprobs(self, image_embeds: Tensor, rows: Sequence[Sequence[int]], start: int) -> Tensor:
        """float32 [B, T - start, V]: log-probabilities of what follows each token from `start` on.

        `rows` int [B, T] are prompts with their answers. One pass computes them, without a cache.
        """
        ids = torch.tensor(rows, device=self.checkpoint.device)
        positions = torch.zeros_like(ids)
        positions[:, IMAGE_POSITIONS] = 1
        logits: Tensor = self.checkpoint.model.text_model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            image_embeds=image_embeds,
            image_embeds_position_mask=positions,
        ).logits
        return logits[:, start:].float().log_softmax(-1)

    @cached_property
    def shifts_padded_rows(self) -> bool:
        """`generate` answers otherwise where the same prompt is padded on the left."""
        return is_left_padding_wrong(self.checkpoint.model)


def refuse_causal_resampler(model: Kosmos2ForConditionalGeneration) -> None:
    """Raise WrongOracle where latent queries do not see all features of an image."""
    if is_resampler_causal(model):
        raise WrongOracle(
            f"the resampler of {_transformers()} is causal: its image embeddings and all that it "
            "generates from them are wrong. Use transformers 5.23 or newer to compare with "
            "Hugging Face; the engine itself is not affected"
        )


def mend_resampler(model: Kosmos2ForConditionalGeneration) -> bool:
    """Let all latent queries see all features, in place; return whether that was needed.

    Raises WrongOracle where the resampler is causal after that too.
    """
    is_causal = is_resampler_causal(model)
    if is_causal:
        model.image_to_text_projection.x_attn.is_causal = False
        refuse_causal_resampler(model)
    return is_causal


@torch.inference_mode()
def is_resampler_causal(model: Kosmos2ForConditionalGeneration) -> bool:
    """Return whether the order of an image's features matters to the resampler.

    It gives them no positions, so it must not. Query i of a causal one sees the first i alone.
    """
    projection = model.image_to_text_projection
    weight = projection.dense.weight
    features = torch.randn(1, 257, weight.shape[1], generator=torch.Generator().manual_seed(0))
    features = features.to(weight.device, weight.dtype)
    return _differ(projection(features)[0], projection(features.flip(1))[0])


@torch.inference_mode()
def is_left_padding_wrong(model: Kosmos2ForConditionalGeneration) -> bool:
    """Return whether padding on the left changes the logits of the second generated token.

    The first comes from the prompt's own pass; the second needs the right position in the cache.
    """
    text = model.text_model
    ids = torch.arange(4, 16, device=text.device)[None]
    padding = torch.full((1, _PADDING), text.config.pad_token_id, device=text.device)
    alone, padded = (
        text.generate(
            input_ids=row,
            attention_mask=(row != text.config.pad_token_id).long(),
            max_new_tokens=2,
            do_sample=False,
            num_beams=1,
            use_cache=True,
            eos_token_id=None,
            output_logits=True,
            return_dict_in_generate=True,
        ).logits[1]
        for row in (ids, torch.cat([padding, ids], dim=1))
    )
    return _differ(alone, padded)


def _differ(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() > _ROUNDING * one.abs().max())


def _transformers() -> str:
    return f"transformers {version('transformers')}"
