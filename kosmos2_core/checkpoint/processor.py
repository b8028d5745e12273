"""The tokenizer and the image settings of a checkpoint, as Hugging Face's processor has them.

The class of that processor is not imported: it takes longer than the import of torch.
"""

from typing import Any

from transformers import AddedToken, AutoTokenizer

from kosmos2_core.checkpoint.files import CheckpointFiles
from kosmos2_core.grounding.grid import IMAGE_SIZE
from kosmos2_core.grounding.vocabulary import Tag, Vocabulary, location_names

_CLASS = "Kosmos2Processor"
# Normalisation of CLIP.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
_SQUARE = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
# What Hugging Face's CLIPImageProcessor takes where a file has no value.
_DEFAULTS = {
    "image_mean": MEAN,
    "image_std": STD,
    "crop_size": _SQUARE,
}


def load_tokenizer(files: CheckpointFiles) -> Any:
    """Load a tokenizer, and add Kosmos-2's tags and locations as its processor does.

    Raises CheckpointError.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            files.directory, local_files_only=True, trust_remote_code=False
        )
    # The tokenizer library raises bare Exception for a damaged tokenizer.json.
    except Exception as error:
        raise _not_loaded(files, error) from error
    tokenizer.add_tokens(
        [
            AddedToken(token, lstrip=True, rstrip=False, normalized=False)
            for token in [*Tag, *location_names()]
        ]
    )
    return tokenizer


def image_settings(files: CheckpointFiles) -> dict[str, Any]:
    """Read the settings of the image processor.

    Raises CheckpointError if there are none, if they are of another model, or if the processor
    does not squash an image to the square: every box would then be relative to a part of it.
    """
    contents = [
        files.json(name)
        for name in ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
    ]
    classes = (content["processor_class"] for content in contents if "processor_class" in content)
    if (of_class := next(classes, _CLASS)) != _CLASS:
        raise files.error(
            f"its processor is a {of_class}, not a {_CLASS}; use the processor files of "
            "microsoft/kosmos-2-patch14-224"
        )
    settings = contents[0].get("image_processor") or contents[1]
    if not settings:
        raise _not_loaded(files, "it has no preprocessor_config.json")
    settings = _DEFAULTS | settings
    _check_squash(files, settings)
    return settings


def check_encoding(files: CheckpointFiles, tokenizer: Any, vocabulary: Vocabulary) -> None:
    """Raise CheckpointError unless a prompt is encoded as its tag and exactly its text."""
    text = " An image of"
    tag, *ids = tokenizer(f"{Tag.GROUNDING}{text}", add_special_tokens=False)["input_ids"]
    if vocabulary.tags.get(tag) != Tag.GROUNDING or "".join(vocabulary.texts(ids)) != text:
        raise files.error(
            "its tokenizer encodes a prompt in another way than Kosmos-2's; "
            "use the tokenizer files of microsoft/kosmos-2-patch14-224"
        )


def _check_squash(files: CheckpointFiles, settings: dict[str, Any]) -> None:
    is_square = settings.get("use_square_size") or settings.get("size") == _SQUARE
    is_cropped = settings.get("do_center_crop", True) and settings["crop_size"] not in (
        IMAGE_SIZE,
        _SQUARE,
    )
    factor = settings.get("rescale_factor", 1 / 255)
    steps = ("do_resize", "do_rescale", "do_normalize")
    is_whole = all(settings.get(step, True) for step in steps) and abs(factor * 255 - 1) < 0.01
    if not is_square or is_cropped or not is_whole:
        raise files.error(
            "its image processor does not squash a wide image to the square "
            "(it crops or scales it): boxes would be wrong. Set use_square_size to true in its "
            "preprocessor_config.json, as microsoft/kosmos-2-patch14-224 has it"
        )


def _not_loaded(files: CheckpointFiles, reason: object) -> Exception:
    return files.error(
        f"its processor does not load ({reason}); fetch the tokenizer and processor files again"
    )
