"""A checkpoint, loaded and checked by behaviour: files -> processor, weights, provenance.

Only safetensors are read and no remote code runs. What would silently spoil captions is tried
out once on loading: how the processor treats a wide image, how it lays out a prompt, and
which ids the tags have.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from transformers import AutoProcessor, Kosmos2ForConditionalGeneration, Kosmos2Processor

from kosmos2_core.checkpoint.files import CheckpointFiles, locate_checkpoint
from kosmos2_core.errors import CheckpointError, NotEnoughMemory
from kosmos2_core.grounding.grid import IMAGE_SIZE
from kosmos2_core.grounding.vocabulary import REAL_VOCABULARY_SIZE, Tag, Vocabulary
from kosmos2_core.images.decode import square_pixels
from kosmos2_core.out_of_memory import naming_out_of_memory

IMAGE_POSITIONS = slice(2, 66)  # of the 64 placeholders in a prompt; see `_check_layout`

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
        model: Hugging Face's model, in evaluation mode, on `device`.
        processor: Hugging Face's `Kosmos2Processor`.
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
    model: Kosmos2ForConditionalGeneration
    processor: Any
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
    processor = _load_processor(files)
    vocabulary = _vocabulary(files, processor.tokenizer)
    mean, std = _normalisation(files, processor.image_processor, torch_device)
    _check_squash(files, processor.image_processor, mean.cpu(), std.cpu())
    _check_layout(files, processor, vocabulary)
    model = _load_model(files, dtypes, vocabulary)
    with naming_out_of_memory(
        NotEnoughMemory,
        f"{files.id} in {model.dtype} on {torch_device}",
        "free its memory, or use --dtype float16, --device cpu or a larger device",
    ):
        model.to(torch_device)
    return Checkpoint(
        provenance=Provenance(
            id=files.id, commit=files.commit, weights_digest=files.weights_digest()
        ),
        model=model,
        processor=processor,
        vocabulary=vocabulary,
        device=torch_device,
        dtype=model.dtype,
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


def _load_processor(files: CheckpointFiles) -> Any:
    try:
        processor = AutoProcessor.from_pretrained(
            files.directory, local_files_only=True, trust_remote_code=False
        )
    # The tokenizer library raises bare Exception for a damaged tokenizer.json.
    except Exception as error:
        raise files.error(
            f"its processor does not load ({error}); fetch the tokenizer and processor files again"
        ) from error
    if not isinstance(processor, Kosmos2Processor):
        raise files.error(
            f"its processor is a {type(processor).__name__}, not a Kosmos2Processor; use the "
            "processor files of microsoft/kosmos-2-patch14-224"
        )
    return processor


def _vocabulary(files: CheckpointFiles, tokenizer: Any) -> Vocabulary:
    try:
        return Vocabulary.from_tokenizer(tokenizer)
    except CheckpointError as error:
        raise files.error(error) from error


def _load_model(
    files: CheckpointFiles, dtypes: Sequence[torch.dtype], vocabulary: Vocabulary
) -> Kosmos2ForConditionalGeneration:
    """Raises CheckpointError where some weight is not finite in any of `dtypes`."""
    for dtype in dtypes:
        model, report = _load_weights(files, dtype)
        _check_weights(files, model, report, vocabulary)
        broken = next((n for n, w in model.named_parameters() if not w.isfinite().all()), None)
        if broken is None:
            return model.eval()
    raise files.error(
        f"{broken} holds NaN or infinity as {dtypes[-1]}; fetch it again, or use --dtype float32 "
        "where the file is sound"
    )


def _load_weights(
    files: CheckpointFiles, dtype: torch.dtype
) -> tuple[Kosmos2ForConditionalGeneration, Any]:
    try:
        model, report = Kosmos2ForConditionalGeneration.from_pretrained(
            files.directory,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (SafetensorError, RuntimeError, ValueError, TypeError, OSError) as error:
        raise files.error(f"its weights do not load ({error}); fetch it again") from error
    return model, report


def _check_weights(
    files: CheckpointFiles,
    model: Kosmos2ForConditionalGeneration,
    report: Any,
    vocabulary: Vocabulary,
) -> None:
    if missing := sorted(report["missing_keys"]):
        raise files.error(
            f"{len(missing)} weights are missing, {missing[0]} among them; it is incomplete, fetch "
            "it again"
        )
    if (rows := model.config.text_config.vocab_size) < len(vocabulary.pieces):
        raise files.error(
            f"the model knows {rows} tokens, its tokenizer {len(vocabulary.pieces)}: they do not "
            "belong together"
        )
    if (side := model.config.vision_config.image_size) != IMAGE_SIZE:
        raise files.error(
            f"the model sees {side}x{side} pixels; only {IMAGE_SIZE}x{IMAGE_SIZE} is supported"
        )


def _normalisation(
    files: CheckpointFiles, image_processor: Any, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    def per_channel(values: list[float]) -> torch.Tensor:
        return torch.tensor(values, device=device).view(3, 1, 1)

    try:
        return per_channel(image_processor.image_mean), per_channel(image_processor.image_std)
    except (TypeError, ValueError, RuntimeError) as error:
        raise files.error(
            f"image_mean and image_std are not three numbers each ({error}); "
            "use the processor files of microsoft/kosmos-2-patch14-224"
        ) from error


def _check_squash(
    files: CheckpointFiles, image_processor: Any, mean: torch.Tensor, std: torch.Tensor
) -> None:
    """Without `use_square_size` the processor crops, and every box is relative to the crop."""
    ramp = np.linspace(0, 255, 600).round().astype(np.uint8)
    wide = Image.fromarray(np.broadcast_to(ramp[None, :, None], (300, 600, 3)).copy())
    theirs = image_processor(images=wide, return_tensors="pt")["pixel_values"][0]
    levels = (theirs * std + mean) * 255
    ours = torch.from_numpy(square_pixels(wide))
    if levels.shape != ours.shape or (levels - ours).abs().max() > 3:
        raise files.error(
            "its image processor does not squash a wide image to the square "
            "(it crops or scales it): boxes would be wrong. Set use_square_size to true in its "
            "preprocessor_config.json, as microsoft/kosmos-2-patch14-224 has it"
        )


def _check_layout(files: CheckpointFiles, processor: Any, vocabulary: Vocabulary) -> None:
    """`<s> <image> 64 placeholders </image> <grounding> text`: what the model was trained on."""
    blank = Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE))
    prompt = processor(text="<grounding> An image of", images=blank, return_tensors="pt")
    ids = prompt["input_ids"][0].tolist()
    tags = [vocabulary.tags.get(i) for i in ids]
    mask = prompt["image_embeds_position_mask"][0].tolist()
    head = [None, Tag.IMAGE, *[None] * 64, Tag.END_OF_IMAGE, Tag.GROUNDING]
    text = "".join(vocabulary.pieces[i] for i in ids[len(head) :])
    if (
        tags[: len(head)] != head
        or ids[0] != processor.tokenizer.bos_token_id
        or mask != [0, 0] + [1] * 64 + [0] * (len(ids) - 66)
        or text != " An image of"
    ):
        raise files.error(
            "its processor lays out a prompt in another way than Kosmos-2's; "
            "use the processor files of microsoft/kosmos-2-patch14-224"
        )


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
