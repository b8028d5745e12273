"""The error tree of the core.

KosmosError
├── ImageError               one sample is unusable; `code` is stored with it
│   ├── EmptyImage           no bytes, or a side of zero pixels
│   ├── UnknownFormat        not an image, or of a format that is not decoded here
│   ├── TruncatedImage       the data end before the pixels do
│   ├── CorruptImage         the decoder refuses the data
│   └── ImageTooLarge        more pixels than the limit; found before decoding
├── AnnotationError          the model gave no usable answer for one sample
│   ├── NonFiniteLogits      NaN or infinity where probabilities should be
│   ├── InvalidRequest       a prompt or pixels that the engine cannot take
│   └── PromptError          the sample's fields make no prompt; another try will not help
│       ├── MissingField     a field that the task needs is not there
│       ├── InvalidField     not text, no box, or too long
│       └── PromptMarkup     a text that holds the model's own tags or locations
├── EngineFailed             the engine broke down; its process had better end
├── CheckpointError          the model cannot be used; ends a run
│   └── NotEnoughMemory      for its weights and slots; found before anything is loaded
└── UnknownTask              no task of that name
"""

from typing import ClassVar


class KosmosError(Exception):
    """Base of every error that the core raises on purpose."""


class ImageError(KosmosError):
    code: ClassVar[str] = "image_error"


class EmptyImage(ImageError):
    code = "empty_image"


class UnknownFormat(ImageError):
    code = "unknown_format"


class TruncatedImage(ImageError):
    code = "truncated_image"


class CorruptImage(ImageError):
    code = "corrupt_image"


class ImageTooLarge(ImageError):
    code = "image_too_large"


class AnnotationError(KosmosError):
    code: ClassVar[str] = "annotation_error"
    is_retriable: ClassVar[bool] = True


class NonFiniteLogits(AnnotationError):
    code = "non_finite_logits"


class InvalidRequest(AnnotationError):
    code = "invalid_request"


class PromptError(AnnotationError):
    code = "prompt_error"
    is_retriable = False


class MissingField(PromptError):
    code = "missing_field"


class InvalidField(PromptError):
    code = "invalid_field"


class PromptMarkup(PromptError):
    code = "prompt_markup"


class EngineFailed(KosmosError):
    """Its cause is what ended the engine: a device error, no memory, a fault of ours."""


class CheckpointError(KosmosError):
    """The message names the checkpoint, what is wrong with it and the remedy."""


class NotEnoughMemory(CheckpointError):
    """The message says what is needed, what there is, and how many slots fit."""


class UnknownTask(KosmosError, LookupError):
    """The message lists the tasks that exist."""
