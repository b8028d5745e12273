"""The error trees: each class says when it is raised and what to do, and so do the messages."""

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from PIL import Image

from kosmos2_core import errors
from kosmos2_core.annotator import Annotator
from kosmos2_core.checkpoint.load import load_checkpoint
from kosmos2_core.comparison.oracle import Oracle
from kosmos2_core.engine.requests import Request, check_request
from kosmos2_core.errors import KosmosError
from kosmos2_core.generation import Generation
from kosmos2_core.images.decode import decode_image, square_pixels
from kosmos2_core.prompts.tasks import DESCRIBE, GROUND, task_named
from kosmos2_core.prompts.text import prompt_text
from pipeline.errors import PipelineError
from tests.support.engine_models import checkpoint_with_causal_resampler
from tests.support.image_files import encoded

TREES: tuple[type[Exception], ...] = (KosmosError, PipelineError)

# The first line says when a class is raised. A later sentence begins with one of these verbs.
WHEN = re.compile(r"Raised (when|for|if|before|by) |Base class of ")
REMEDY = re.compile(
    r"(?:^|[.:] )(Add|Catch|Check|Convert|Copy|Correct|End|Follow|Let|Read|Remove|Replace|Resolve|"
    r"Restore|Retry|Run|Save|Scale|Skip|Use|Wait)\b"
)


def tree(root: type[Exception]) -> Iterator[type[Exception]]:
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


# The errors of the packages that jobs builds on; what else is imported adds its own.
ALL = [error for root in TREES for error in tree(root) if error.__module__ == root.__module__]


@pytest.mark.parametrize("error", ALL, ids=lambda error: error.__name__)
def test_an_error_says_when_it_is_raised_and_what_to_do(error: type[Exception]) -> None:
    """`vars`, because a class inherits the docstring of its base."""
    text = inspect.cleandoc(vars(error).get("__doc__") or "")
    prose = " ".join(re.split(r"^(?:Attributes|Example):", text, flags=re.M)[0].split())
    assert WHEN.match(prose)
    first, _, rest = prose.partition(". ")
    assert REMEDY.search(rest), f"what to do after {first!r}?"


@pytest.mark.parametrize("error", ALL, ids=lambda error: error.__name__)
def test_an_error_is_named_in_the_tree_of_its_module(error: type[Exception]) -> None:
    """At the top of the module, indented as deep as the class is below the root."""
    drawn = inspect.getdoc(inspect.getmodule(error)) or ""
    assert re.search(rf"^[ │├└─]*{error.__name__}( |$)", drawn, re.M)


JPEG = encoded(Image.new("RGB", (64, 48), "red"), "JPEG")
PNG = encoded(Image.effect_noise((64, 48), 90), "PNG")
HUGE = Generation(slots=10_000_000)
# A call that raises each error, the object that the message names, and the remedy in it. Errors
# of the engine have their tests in tests/core/engine.
MESSAGES: dict[str, tuple[type[KosmosError], Callable[[], Any], str, str]] = {
    "no bytes": (errors.EmptyImage, lambda: decode_image(b""), "the image", "copy or download"),
    "no pixels": (
        errors.EmptyImage,
        lambda: square_pixels(Image.new("RGB", (0, 9))),
        "the image has 0x9 pixels",
        "replace it",
    ),
    "a page": (
        errors.UnknownFormat,
        lambda: decode_image(b"<html>404"),
        "an HTML page",
        "download the image again",
    ),
    "another format": (
        errors.UnknownFormat,
        lambda: decode_image(b"8BPS\0\1" + bytes(99)),
        "PSD is not supported",
        "convert it to JPEG or PNG",
    ),
    "unknown bytes": (
        errors.UnknownFormat,
        lambda: decode_image(b"\x80\x81\x82"),
        r"the first bytes \(80 81 82\)",
        "convert the image to JPEG or PNG",
    ),
    "junk before": (
        errors.CorruptImage,
        lambda: decode_image(b"\r\n" + JPEG),
        "the JPEG data begin at byte 2",
        "remove the bytes before them",
    ),
    "a broken header": (
        errors.CorruptImage,
        lambda: decode_image(PNG[:20] + bytes(len(PNG) - 20)),
        "the image data are broken",
        "copy the file again",
    ),
    "half a file": (
        errors.TruncatedImage,
        lambda: decode_image(PNG[: len(PNG) // 2]),
        "the image data end too soon",
        "copy or download the file again",
    ),
    "too many pixels": (
        errors.ImageTooLarge,
        lambda: decode_image(JPEG, max_pixels=100),
        "the image has 64x48 pixels; the limits are 100",
        "Scale the image down",
    ),
    "no field": (
        errors.MissingField,
        lambda: prompt_text(GROUND, {}),
        "task ground needs the field 'phrase'",
        "add it",
    ),
    "a field of another type": (
        errors.InvalidField,
        lambda: prompt_text(DESCRIBE, {"box": [0, 0, 2, 2]}),
        "box of task describe",
        "must be x1, y1, x2, y2",
    ),
    "markup": (
        errors.PromptMarkup,
        lambda: prompt_text(GROUND, {"phrase": "a<phrase> b"}),
        "phrase of task ground",
        "remove it",
    ),
    "no prompts": (
        errors.InvalidRequest,
        lambda: check_request(Request(id=1, pixels=decode_image(JPEG).pixels, prompts=())),
        "request",
        "prompt",
    ),
    "no checkpoint": (
        errors.CheckpointError,
        lambda: load_checkpoint("no/such/folder"),
        "no checkpoint at 'no/such/folder'",
        "give a directory",
    ),
    "too many slots": (
        errors.NotEnoughMemory,
        lambda: Annotator.from_pretrained("shapes", device="cpu", generation=HUGE),
        "checkpoint shapes: 10000000 slots",
        "slots",
    ),
    "a defective oracle": (
        errors.WrongOracle,
        lambda: Oracle(checkpoint_with_causal_resampler()),
        "the resampler of transformers",
        "Use transformers 5.23",
    ),
    "no task": (
        errors.UnknownTask,
        lambda: task_named("poem"),
        "no task named 'poem'",
        "there are: brief",
    ),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_a_message_names_the_object_and_the_remedy(case: str) -> None:
    error, call, named, remedy = MESSAGES[case]
    with pytest.raises(error, match=f"(?s){named}.*{remedy}"):
        call()


def test_each_kind_of_error_has_a_message_to_check() -> None:
    """All classes that code outside the engine raises."""
    of_the_engine = {errors.NonFiniteLogits, errors.EngineOutOfMemory}
    leaves = {error for error in tree(KosmosError) if not error.__subclasses__()}
    assert leaves - of_the_engine <= {error for error, *_ in MESSAGES.values()}
