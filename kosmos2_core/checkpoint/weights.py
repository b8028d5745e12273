"""The weights of a checkpoint: safetensors files -> modules, complete and finite."""

from collections.abc import Sequence
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from kosmos2_core.checkpoint.files import CheckpointFiles
from kosmos2_core.checkpoint.modules import model_config, model_modules, positions_table
from kosmos2_core.grounding.grid import IMAGE_SIZE
from kosmos2_core.grounding.vocabulary import Vocabulary

_TOKENS = "text_model.model.embed_tokens.weight"
_HEAD = "text_model.lm_head.weight"


def load_weights(
    files: CheckpointFiles, dtypes: Sequence[torch.dtype], vocabulary: Vocabulary
) -> tuple[Any, torch.dtype]:
    """Load the weights in the first of `dtypes` in which all are finite. Returns that dtype, too.

    Raises CheckpointError where some weight is not finite in any of `dtypes`, and for weights that
    are incomplete or of another model.
    """
    model = model_modules(model_config(files))
    for dtype in dtypes:
        _fill(files, model, dtype)
        _check_sizes(files, model, vocabulary)
        broken = next((n for n, w in model.named_parameters() if not w.isfinite().all()), None)
        if broken is None:
            return model, dtype
    raise files.error(
        f"{broken} holds NaN or infinity as {dtypes[-1]}; fetch it again, or use --dtype float32 "
        "where the file is sound"
    )


def _check_sizes(files: CheckpointFiles, model: Any, vocabulary: Vocabulary) -> None:
    text, vision = model.config.text_config, model.config.vision_config
    if text.vocab_size < len(vocabulary.pieces):
        raise files.error(
            f"the model knows {text.vocab_size} tokens, its tokenizer {len(vocabulary.pieces)}: "
            "they do not belong together"
        )
    if vision.image_size != IMAGE_SIZE:
        raise files.error(
            f"the model sees {vision.image_size}x{vision.image_size} pixels; only "
            f"{IMAGE_SIZE}x{IMAGE_SIZE} is supported"
        )


def _fill(files: CheckpointFiles, model: Any, dtype: torch.dtype) -> None:
    config = model.config
    try:
        weights = _read(files, {name for name, _ in model.named_parameters()}, dtype)
        if config.tie_word_embeddings and _TOKENS in weights:
            weights[_HEAD] = weights[_TOKENS]
        missing, _ = model.load_state_dict(weights, strict=False, assign=True)
    except (SafetensorError, RuntimeError, OSError) as error:
        raise files.error(f"its weights do not load ({error}); fetch it again") from error
    if missing:
        raise files.error(
            f"{len(missing)} weights are missing, {min(missing)} among them; it is incomplete, "
            "fetch it again"
        )
    text = model.text_model
    if config.tie_word_embeddings:
        text.lm_head.weight = text.model.embed_tokens.weight  # one parameter
    text.model.embed_positions.weights = positions_table(config.text_config).to(dtype)


def _read(files: CheckpointFiles, names: set[str], dtype: torch.dtype) -> dict[str, Tensor]:
    """Read the tensors with these names, as far as they are there."""
    found = {}
    for path in files.weights:
        with safe_open(path, "pt") as file:
            for name in names & set(file.keys()):
                found[name] = file.get_tensor(name).to(dtype)
    return found
