"""A checkpoint, loaded and checked: files -> tokenizer, image settings, weights, provenance.

Only safetensors are read and no remote code runs. What would silently spoil captions is checked
once on loading: how a wide image becomes square, how a prompt is encoded, and which ids the tags
have.
"""

from dataclasses import dataclass
from typing import Any

import torch

from kosmos2_core.checkpoint.files import CheckpointFiles, locate_checkpoint
from kosmos2_core.checkpoint.processor import check_encoding, image_settings, load_tokenizer
from kosmos2_core.checkpoint.weights import load_weights
from kosmos2_core.errors import CheckpointError, NotEnoughMemory
from kosmos2_core.grounding.vocabulary import REAL_VOCABULARY_SIZE, Vocabulary
from kosmos2_core.out_of_memory import naming_out_of_memory

IMAGE_POSITIONS = slice(2, 66)  # of the 64 placeholders in a prompt

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """The identity of the weights of a checkpoint.

    Attributes:
        id: Hub id without revision, directory, or `shapes`.
        commit: Commit hash of the hub; None for files that are not from the hub.
        weights_digest: sha256 (hex) over the names and contents of the safetensors files.

    Example:
        >>> provenance = load_checkpoint("shapes").provenance
        >>> provenance.id, provenance.commit, len(provenance.weights_digest)
        ('shapes', None, 64)
    """

    id: str
    commit: str | None
    weights_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A loaded and checked checkpoint, as `load_checkpoint` returns it.

    Attributes:
        provenance: The identity of the weights.
        model: The weights, in modules with the names of Hugging Face's, on `device`. These modules
            compute nothing; `comparison.reference.with_reference_model` gives Hugging Face's own.
        tokenizer: Hugging Face's tokenizer, with the tags and locations of Kosmos-2.
        vocabulary: Token ids of tags and locations, and the text of tokens.
        device: Device of the weights.
        dtype: Dtype of the weights.
        no_repeat_ngram_size: Size of the n-grams that must not repeat; 0 for no ban.
        mean: float32 [3, 1, 1] on `device`: mean of pixels scaled to [0, 1], per channel.
        std: float32 [3, 1, 1] on `device`: standard deviation, likewise.

    Example:
        >>> checkpoint = load_checkpoint("shapes", device="cpu")
        >>> checkpoint.dtype_name, checkpoint.no_repeat_ngram_size
        ('float32', 0)
    """

    provenance: Provenance
    model: Any
    tokenizer: Any
    vocabulary: Vocabulary
    device: torch.device
    dtype: torch.dtype
    no_repeat_ngram_size: int
    mean: torch.Tensor
    std: torch.Tensor

    @property
    def dtype_name(self) -> str:
        """Name of the dtype, such as "float32"."""
        return str(self.dtype).removeprefix("torch.")

    def normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalise pixels as the checkpoint's processor does.

        Args:
            pixels: uint8 [N, 3, 224, 224], RGB.

        Returns:
            [N, 3, 224, 224] of `dtype` on `device`: (pixels / 255 - mean) / std.
        """
        levels = pixels.to(self.device).float().div_(255)
        return levels.sub_(self.mean).div_(self.std).to(self.dtype)


def load_checkpoint(
    name: str | CheckpointFiles = "shapes",
    *,
    device: str = "auto",
    dtype: str = "auto",
    no_repeat_ngram_size: int | None = None,
) -> Checkpoint:
    """Load a Kosmos-2 checkpoint and check how its processor and tokenizer behave.

    Only safetensors are read, and no code of the repository runs.

    Args:
        name: Hub id (`owner/name` or `owner/name@revision`), directory, `shapes` (the embedded
            checkpoint), or files that `locate_checkpoint` returned.
        device: "auto" (CUDA if there is one), "cpu", "cuda" or "cuda:N".
        dtype: "float32", "float16", "bfloat16" or "auto". "auto" is float32 on the CPU, where half
            precision is slower. On CUDA it is float16, or bfloat16 if a weight is too large for
            float16: in bfloat16 4 % of the location tokens have tied scores.
        no_repeat_ngram_size: Size of the n-grams that must not repeat; 0 for no ban. None takes
            the value in the checkpoint's files, else 3 for the vocabulary of Kosmos-2 (as in
            microsoft/unilm) and 0 for others.

    Returns:
        The checkpoint, on `device`.

    Raises:
        CheckpointError: The checkpoint, the device or the dtype cannot be used. The message names
            the checkpoint, what is wrong with it and the remedy.

    Example:
        >>> checkpoint = load_checkpoint("shapes", device="cpu")
        >>> checkpoint.provenance.id
        'shapes'
    """
    files = locate_checkpoint(name) if isinstance(name, str) else name
    torch_device = device_named(device)
    dtypes = dtypes_for(dtype, torch_device)
    tokenizer = load_tokenizer(files)
    vocabulary = _vocabulary(files, tokenizer)
    check_encoding(files, tokenizer, vocabulary)
    mean, std = _normalisation(files, image_settings(files), torch_device)
    model, model_dtype = load_weights(files, dtypes, vocabulary)
    with naming_out_of_memory(
        NotEnoughMemory,
        f"{files.id} in {model_dtype} on {torch_device}",
        "free its memory, or use --dtype float16, --device cpu or a larger device",
    ):
        model.to(torch_device)
    return Checkpoint(
        provenance=Provenance(
            id=files.id, commit=files.commit, weights_digest=files.weights_digest()
        ),
        model=model,
        tokenizer=tokenizer,
        vocabulary=vocabulary,
        device=torch_device,
        dtype=model_dtype,
        no_repeat_ngram_size=_no_repeat_ngram_size(files, vocabulary, no_repeat_ngram_size),
        mean=mean,
        std=std,
    )


def device_named(name: str) -> torch.device:
    """`auto` is CUDA where there is one. Raises CheckpointError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise CheckpointError(f"no device {name!r}; use auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise CheckpointError(f"device {name!r} asked for, but torch sees no CUDA here; use cpu")
    return device


def dtypes_for(name: str, device: torch.device) -> tuple[torch.dtype, ...]:
    """In the order of preference; the first in which every weight is finite is taken.

    Raises CheckpointError for a name that is none.
    """
    if name == "auto":
        is_cuda = device.type == "cuda"
        return (torch.float16, torch.bfloat16) if is_cuda else (torch.float32,)
    try:
        return (_DTYPES[name],)
    except KeyError:
        raise CheckpointError(f"no dtype {name!r}; use auto, {', '.join(_DTYPES)}") from None


def _vocabulary(files: CheckpointFiles, tokenizer: Any) -> Vocabulary:
    try:
        return Vocabulary.from_tokenizer(tokenizer)
    except CheckpointError as error:
        raise files.error(error) from error


def _normalisation(
    files: CheckpointFiles, settings: dict[str, Any], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    def per_channel(values: list[float]) -> torch.Tensor:
        return torch.tensor(values, device=device).view(3, 1, 1)

    try:
        return per_channel(settings["image_mean"]), per_channel(settings["image_std"])
    except (TypeError, ValueError, RuntimeError) as error:
        raise files.error(
            f"image_mean and image_std are not three numbers each ({error}); "
            "use the processor files of microsoft/kosmos-2-patch14-224"
        ) from error


def _no_repeat_ngram_size(files: CheckpointFiles, vocabulary: Vocabulary, asked: int | None) -> int:
    """Flag > generation_config.json > config.json > 3 for the real vocabulary, else 0.

    3 is part of the model's official recipe (microsoft/unilm, kosmos-2: --no-repeat-ngram-size
    3). transformers' config class drops the attribute, so the files are read as they are.
    """
    config = files.json("config.json")
    places = (files.json("generation_config.json"), config, config.get("text_config") or {})
    said = [place.get("no_repeat_ngram_size") for place in places]
    default = 3 if len(vocabulary.pieces) == REAL_VOCABULARY_SIZE else 0
    size = next((n for n in [asked, *said] if n is not None), default)
    if not isinstance(size, int) or size < 0:
        raise files.error(f"no_repeat_ngram_size is {size!r}; it must be a number from 0")
    return size
