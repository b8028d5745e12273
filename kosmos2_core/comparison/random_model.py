"""A random model with the real one's proportions, by default about a twentieth of its size."""

from dataclasses import dataclass, replace

import torch
from transformers import Kosmos2Config, Kosmos2ForConditionalGeneration

from kosmos2_core.checkpoint.load import Checkpoint, load_checkpoint
from kosmos2_core.grounding.grid import IMAGE_SIZE
from kosmos2_core.grounding.vocabulary import REAL_VOCABULARY_SIZE

# Each block of the text model adds this many times what the embedding is: less, and every token
# would predict itself, for embedding and head are tied.
_BLOCK_GAIN = 4.0


LATENTS = 64  # per image, from the resampler: placeholders in a prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Proportions:
    """Sizes of a model. By default 1:21 of `Kosmos2Config()`, with the same shares of time."""

    text_layers: int = 8
    text_width: int = 768
    text_heads: int = 12
    vocabulary: int = 8192
    vision_layers: int = 8
    vision_width: int = 384
    vision_heads: int = 6
    patch: int = 14

    @property
    def patches(self) -> int:
        """Patches of an image, with the class token."""
        return (IMAGE_SIZE // self.patch) ** 2 + 1

    def config(self) -> Kosmos2Config:
        return Kosmos2Config(
            text_config={
                "vocab_size": self.vocabulary,
                "embed_dim": self.text_width,
                "layers": self.text_layers,
                "attention_heads": self.text_heads,
                "ffn_dim": 4 * self.text_width,
            },
            vision_config={
                "hidden_size": self.vision_width,
                "num_hidden_layers": self.vision_layers,
                "num_attention_heads": self.vision_heads,
                "intermediate_size": 4 * self.vision_width,
                "patch_size": self.patch,
            },
            latent_query_num=LATENTS,
        )


# The published model's own sizes: 1.66 B parameters.
FULL_SIZE = Proportions(
    text_layers=24,
    text_width=2048,
    text_heads=32,
    vocabulary=REAL_VOCABULARY_SIZE,
    vision_layers=24,
    vision_width=1024,
    vision_heads=16,
)


def random_checkpoint(
    proportions: Proportions,
    *,
    ngram_size: int,
    seed: int = 0,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Checkpoint:
    """Return a checkpoint with the tokenizer of `shapes`. Its weights are made on the device."""
    checkpoint = load_checkpoint("shapes", device=device, no_repeat_ngram_size=ngram_size)
    model = _random_model(proportions.config(), seed, checkpoint.device).to(dtype)
    return replace(checkpoint, model=model, dtype=dtype)


def _random_model(
    config: Kosmos2Config, seed: int, device: torch.device
) -> Kosmos2ForConditionalGeneration:
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.no_grad(), device:
        torch.manual_seed(seed)
        model = Kosmos2ForConditionalGeneration(config).eval()
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                gain = _BLOCK_GAIN if "text_model.model.layers" in name else 1.0
                weight.normal_(0, gain * weight.shape[-1] ** -0.5)
    return model
