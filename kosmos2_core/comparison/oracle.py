"""Generation by Hugging Face's own classes: what the engine is measured and tested against."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from kosmos2_core.checkpoint.load import IMAGE_POSITIONS, Checkpoint


@torch.inference_mode()
def embed_images(checkpoint: Checkpoint, pixels: np.ndarray) -> Tensor:
    """uint8 [B, 3, 224, 224] -> image embeddings [B, 64, D] for `generate`."""
    model = checkpoint.model
    hidden = model.vision_model(checkpoint.normalised(torch.from_numpy(pixels)))[0]
    features = normalize(model.vision_model.model.post_layernorm(hidden), dim=-1)
    embeds: Tensor = model.image_to_text_projection(features)[0]
    return embeds


@torch.inference_mode()
def run_generate(
    checkpoint: Checkpoint, image_embeds: Tensor, prompt_ids: Sequence[int], **options: Any
) -> Any:
    """Return what transformers' `generate` gives, greedy, for one prompt and images [B, 64, D].

    `options` go to it. All rows have one prompt, so nothing is padded: left padding decodes wrongly
    in this version of transformers.
    """
    ids = torch.tensor([prompt_ids], device=checkpoint.device).expand(len(image_embeds), -1)
    positions = torch.zeros_like(ids)
    positions[:, IMAGE_POSITIONS] = 1
    return checkpoint.model.text_model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        image_embeds=image_embeds,
        image_embeds_position_mask=positions,
        no_repeat_ngram_size=checkpoint.no_repeat_ngram_size,
        do_sample=False,
        num_beams=1,
        use_cache=True,
        **options,
    )
