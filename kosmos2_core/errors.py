"""The error tree of the core.

KosmosError
├── ImageError               an image cannot be decoded
│   ├── EmptyImage           no bytes, or a side of zero pixels
│   ├── UnknownFormat        not an image, or an image in an unsupported format
│   ├── TruncatedImage       the data end before the pixels do
│   ├── CorruptImage         the header or the pixels are broken
│   └── ImageTooLarge        more pixels than the limit; found before decoding
├── AnnotationError          one prompt about one image has no answer
│   ├── NonFiniteLogits      NaN or infinity in the model's output
│   ├── InvalidRequest       a prompt or pixels that the engine cannot process
│   └── PromptError          the fields of a sample do not make a prompt
│       ├── MissingField     a required field is missing
│       ├── InvalidField     a field has the wrong type, range or length
│       └── PromptMarkup     a text field contains the model's own tags
├── EngineFailed             the engine stopped after an error
│   └── EngineOutOfMemory    memory ran out while it computed
├── CheckpointError          a checkpoint, device or dtype cannot be used
│   └── NotEnoughMemory      weights and slots do not fit into memory
├── UnknownTask              no task has the given name
└── WrongOracle              the classes that the engine is compared with are defective

Each message says what failed, why, and what to do. `code` is stored with a rejected sample;
`is_retriable` says whether a retry can succeed with the same input.
"""

from typing import ClassVar


class KosmosError(Exception):
    """Base class of all errors that `kosmos2_core` raises on purpose.

    Catch the subclass that the caller can act on; the message says what failed.

    Example:
        >>> from kosmos2_core import KosmosError, decode_image
        >>> try:
        ...     decode_image(b"")
        ... except KosmosError as error:
        ...     print(type(error).__name__)
        EmptyImage
    """


class ImageError(KosmosError):
    """Raised when an image cannot be decoded. A subclass says why.

    Skip the image and continue with the next one; other images are not affected.

    Attributes:
        code: Name of the reason, as stored in the column `error_type` of rejected samples.

    Example:
        >>> from kosmos2_core import ImageError, decode_image
        >>> try:
        ...     decode_image(b"<html>")
        ... except ImageError as error:
        ...     print(error.code)
        unknown_format
    """

    code: ClassVar[str] = "image_error"


class EmptyImage(ImageError):
    """Raised when the data have no bytes, or a side of the image has zero pixels.

    Copy or download the file again.
    """

    code = "empty_image"


class UnknownFormat(ImageError):
    """Raised when the data are not an image, or an image in a format that is not supported.

    Follow the message. It names the format, and the extra to install if there is one.
    """

    code = "unknown_format"


class TruncatedImage(ImageError):
    """Raised when the data end before the last pixel.

    Copy or download the file again.
    """

    code = "truncated_image"


class CorruptImage(ImageError):
    """Raised when the header or the pixel data of an image are broken.

    Copy the file again, or save the image again as JPEG or PNG.
    """

    code = "corrupt_image"


class ImageTooLarge(ImageError):
    """Raised before decoding when an image has more pixels than the limit.

    Scale the image down, or pass a larger `max_pixels` to `decode_image`.
    """

    code = "image_too_large"


class AnnotationError(KosmosError):
    """Raised when one prompt about one image has no usable answer. A subclass says why.

    Skip this answer; other images and tasks are not affected. Retry later if
    `is_retriable` is true.

    Attributes:
        code: Name of the reason, as stored in the column `error_type` of rejected samples.
        is_retriable: Whether a retry can succeed with the same input.

    Example:
        >>> from kosmos2_core import AnnotationError, Annotator
        >>> from PIL import Image
        >>> annotator = Annotator.from_pretrained("shapes")
        >>> try:  # the task `ground` needs a phrase
        ...     list(annotator.annotate([Image.new("RGB", (64, 64))], task="ground"))
        ... except AnnotationError as error:
        ...     print(error.code, error.is_retriable)
        missing_field False
    """

    code: ClassVar[str] = "annotation_error"
    is_retriable: ClassVar[bool] = True


class NonFiniteLogits(AnnotationError):
    """Raised when the model's output for a sample contains NaN or infinity.

    Use dtype float32; half precision can overflow.
    """

    code = "non_finite_logits"


class InvalidRequest(AnnotationError):
    """Raised when the engine cannot process a prompt or the pixels of a request.

    Correct what the message names: the shape or dtype of the pixels, or the number
    of tokens.
    """

    code = "invalid_request"


class PromptError(AnnotationError):
    """Raised when the fields of a sample do not make a prompt. A subclass says why.

    Correct the field that the message names. A retry with the same fields fails again.
    """

    code = "prompt_error"
    is_retriable = False


class MissingField(PromptError):
    """Raised when a sample lacks a field that the task requires.

    Add the field to the sample, or map another field or column to it.
    """

    code = "missing_field"


class InvalidField(PromptError):
    """Raised when a field has the wrong type, is out of range or is too long.

    Convert the field to what the message asks for. Boxes are
    [x1, y1, x2, y2] in [0, 1], origin top left.
    """

    code = "invalid_field"


class PromptMarkup(PromptError):
    """Raised when a text field contains tags, locations or special tokens of the model.

    Remove the markup from the text. Pass boxes as a field of kind `box`.
    """

    code = "prompt_markup"


class EngineFailed(KosmosError):
    """Raised when the engine stopped after an error, for this call and all later ones.

    End the process and start a new one. `__cause__` is the error that stopped the
    engine, for example a device error or a lack of memory.
    """


class EngineOutOfMemory(EngineFailed):
    """Raised when memory ran out while the engine computed. No sample is to blame.

    Use fewer slots in a new process; the message says how many there were.
    """


class CheckpointError(KosmosError):
    """Raised when a checkpoint, a device or a dtype cannot be used.

    Follow the message. It names the checkpoint, what is wrong with it and the remedy.

    Example:
        >>> from kosmos2_core import CheckpointError, load_checkpoint
        >>> try:
        ...     load_checkpoint("no/such/folder")
        ... except CheckpointError as error:
        ...     print(str(error)[:35])
        no checkpoint at 'no/such/folder':
    """


class NotEnoughMemory(CheckpointError):
    """Raised when the weights and the slots do not fit into memory, if possible before loading.

    Use fewer slots or a smaller dtype. The message says how many slots fit, or how many do not.
    """


class UnknownTask(KosmosError, LookupError):
    """Raised when no task has the given name.

    Use one of the names in `TASKS`, which the message lists.

    Example:
        >>> from kosmos2_core import Annotator, UnknownTask
        >>> annotator = Annotator.from_pretrained("shapes")
        >>> try:
        ...     annotator.annotate([], task="poem")
        ... except UnknownTask as error:
        ...     print(str(error)[:20])
        no task named 'poem'
    """


class WrongOracle(KosmosError):
    """Raised when the Hugging Face classes that the engine is compared with are defective.

    Follow the message. It names the version of transformers, its defect and the remedy. Only
    comparisons need these classes; annotations are not affected.
    """


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class if it has none."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
