"""A stage for any Ray Data pipeline.

It changes nothing in its process: no environment variable, no logging, no interpreter setting. It
ends no process. On CUDA alone, the engine sets what `engine/model/numerics` names. Modules that
need torch are imported when a model is loaded.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from kosmos2_core.annotation import Annotation
from kosmos2_core.errors import AnnotationError, CheckpointError, ImageError, UnknownFormat
from kosmos2_core.generation import Generation
from pipeline.columns import column_of
from pipeline.errors import SpecError
from pipeline.execution.annotate.images import ImageAnnotator
from pipeline.schema import ENTITY, ISSUES
from pipeline.spec.tasks import TaskDefinition, TaskUse

if TYPE_CHECKING:
    from kosmos2_core.images.decode import DecodeMode, ExifPolicy

_DECODERS = 4  # threads

_ANNOTATION = pa.struct(
    [
        pa.field("caption", pa.string()),
        pa.field("prompt_chars", pa.int32()),
        pa.field("entities", pa.list_(ENTITY)),
        pa.field("issues", ISSUES),
        pa.field("finish_reason", pa.string()),
    ]
)

ANSWER = pa.struct([*_ANNOTATION, pa.field("error", pa.string())])
"""The column of a task. If `error` is set, all other fields are null."""


class AnnotateImages:
    """Annotate the images of a Ray Data pipeline: a callable class for `Dataset.map_batches`.

    The stage adds one struct column per task, named after the task. Its fields are `caption`,
    `prompt_chars` (the number of leading characters of the caption that come from the prompt),
    `entities` (spans, boxes and scores), `issues`, `finish_reason` and `error`. Boxes are xyxy,
    normalised to [0, 1], origin top left. If an image cannot be decoded or annotated, `error` is
    "code: message" and the other fields are null; other images are not affected. All other columns
    pass through.

    Concurrent batches in one actor share one engine. If the engine fails, this batch and all later
    ones raise EngineFailed, and Ray handles the error as configured.

    Args:
        model: Hub id (`owner/name` or `owner/name@revision`), directory, URL of a folder such as
            `s3://bucket/model`, or `shapes`, the embedded default. A node fetches it once.
        tasks: Tasks, in the syntax of `--task`: `brief`, `detailed`, or with the column of a
            prompt's field, `ground:phrase=caption_column`.
        image_column: Column of the images: encoded bytes, structs with `bytes`, or uint8 arrays
            [height, width] or [height, width, 1, 3 or 4], of any size.
        device: "auto" (CUDA if there is one), "cpu", "cuda" or "cuda:N".
        dtype: "auto" (float32 on the CPU, float16 on CUDA), "float32", "float16" or "bfloat16".
        generation: Options of generation. `slots` None takes as many as fit into memory.
        exif: "apply" turns encoded images upright by their EXIF orientation, "ignore" does not.
        decode: "fast" decodes large JPEGs at a fraction of their size (see `decode_image`).
        define: User-defined tasks, which `tasks` can name.

    Raises:
        SpecError: A task is unknown or wrong, or the model cannot be loaded.

    Example:
        >>> ds = ray.data.read_images("s3://bucket/photos/", include_paths=True)
        >>> ds = ds.map_batches(
        ...     AnnotateImages,
        ...     fn_constructor_kwargs={"model": "microsoft/kosmos-2-patch14-224"},
        ...     batch_size=64, num_gpus=1, concurrency=4,
        ... )
        >>> ds.write_parquet("s3://bucket/annotated/")
    """

    def __init__(
        self,
        model: str = "shapes",
        tasks: Sequence[str] = ("brief",),
        image_column: str = "image",
        *,
        device: str = "auto",
        dtype: str = "auto",
        generation: Generation = Generation(),
        exif: "ExifPolicy" = "apply",
        decode: "DecodeMode" = "exact",
        define: Sequence[TaskDefinition] = (),
    ) -> None:
        from kosmos2_core.annotator import Annotator
        from kosmos2_core.shared_annotator import SharedAnnotator
        from pipeline.models.staging import stage_model

        self._uses = _uses(tasks, define)
        try:
            annotator = Annotator.from_pretrained(
                stage_model(model),
                device=device,
                dtype=dtype,
                generation=generation,
                tasks=[use.task for use in self._uses],
            )
        except CheckpointError as error:
            raise SpecError(str(error)) from error
        self._annotator = ImageAnnotator(SharedAnnotator(annotator), self._uses)
        self._image_column = image_column
        self._exif: ExifPolicy = exif
        self._decode: DecodeMode = decode

    def __call__(self, batch: "Mapping[str, np.ndarray] | pa.Table | Any") -> pa.Table:
        """Annotate a batch. Ray calls this.

        Args:
            batch: A numpy, pandas or pyarrow batch with the image column.

        Returns:
            The batch as an Arrow table, with a column per task.

        Raises:
            SpecError: The batch has no image column, or already has the column of a task.
            EngineFailed: The engine failed in this or an earlier batch.
        """
        from ray.data.block import BlockAccessor

        table = BlockAccessor.for_block(BlockAccessor.batch_to_block(batch)).to_arrow()
        self._check_columns(table.column_names)
        images = BlockAccessor.for_block(table.select([self._image_column])).to_numpy()
        with ThreadPoolExecutor(_DECODERS, thread_name_prefix="decode") as pool:
            decoded = list(pool.map(self._pixels, images[self._image_column]))
        answers = self._answers(decoded, self._fields(table))
        for number, use in enumerate(self._uses):
            column = _answer_column([of_image[number] for of_image in answers])
            table = table.append_column(use.task.name, column)
        return table

    def _check_columns(self, names: Sequence[str]) -> None:
        if self._image_column not in names:
            raise SpecError(
                f"the batch has no column {self._image_column!r}; set image_column to the column "
                f"of the images; the columns are: {', '.join(names)}"
            )
        if taken := [use.task.name for use in self._uses if use.task.name in names]:
            raise SpecError(f"the batch already has a column {taken[0]!r}; drop or rename it")

    def _pixels(self, image: object) -> "np.ndarray | ImageError":
        from PIL import Image

        from kosmos2_core.images.decode import decode_image, square_pixels

        try:
            if isinstance(image, Mapping):
                image = image.get("bytes")
            if isinstance(image, bytes):
                return decode_image(image, exif=self._exif, decode=self._decode).pixels
            if isinstance(image, np.ndarray):
                return square_pixels(Image.fromarray(_raster(image)))
            raise UnknownFormat(
                f"an image is neither bytes nor an array, but {type(image).__name__}"
            )
        except ImageError as error:
            return error

    def _fields(self, table: pa.Table) -> list[dict[str, object]]:
        """Return the columns of each image that prompts are made of."""
        paths = [path for use in self._uses for _, path in use.sources]
        names = {name for path in paths for name in (path, path.partition(".")[0])}
        rows: list[dict[str, object]]
        rows = table.select([name for name in table.column_names if name in names]).to_pylist()
        return rows

    def _answers(
        self, decoded: Sequence["np.ndarray | ImageError"], fields: Sequence[dict[str, object]]
    ) -> list[Sequence[Annotation | AnnotationError | ImageError]]:
        """Return one answer per task for each image."""
        good = [
            (pixels, of_image)
            for pixels, of_image in zip(decoded, fields, strict=True)
            if not isinstance(pixels, ImageError)
        ]
        pixels, known = zip(*good, strict=True) if good else ((), ())
        answered = iter(self._annotator.answers(np.stack(pixels), known) if good else ())
        return [
            [each] * len(self._uses) if isinstance(each, ImageError) else next(answered)
            for each in decoded
        ]


def _uses(tasks: Sequence[str], define: Sequence[TaskDefinition]) -> tuple[TaskUse, ...]:
    own = {each.name: each.task for each in define}
    try:
        uses = tuple(TaskUse.parse(text, own) for text in tasks)
    except (ValueError, LookupError) as error:
        raise SpecError(f"tasks: {error}") from error
    if not uses or len({use.task.name for use in uses}) < len(uses):
        raise SpecError(f"tasks is {list(tasks)}; name at least one task, and each task once")
    return uses


def _raster(array: np.ndarray) -> np.ndarray:
    """Return an array that PIL can read. Raises UnknownFormat for an array that is not an image."""
    is_grey = array.ndim == 3 and array.shape[2] == 1
    raster = array[:, :, 0] if is_grey else array
    is_image = raster.ndim == 2 or (raster.ndim == 3 and raster.shape[2] in (3, 4))
    if raster.dtype != np.uint8 or not is_image:
        raise UnknownFormat(
            f"an image is an array of {array.dtype} {list(array.shape)}; give uint8 "
            "[height, width, channels]"
        )
    return np.ascontiguousarray(raster)


def _answer_column(
    answers: Sequence[Annotation | AnnotationError | ImageError],
) -> pa.StructArray:
    """Return the answers to a task as a column of `ANSWER`."""
    annotations = [answer for answer in answers if isinstance(answer, Annotation)]
    numbers = count()
    places = [next(numbers) if isinstance(answer, Annotation) else None for answer in answers]
    errors = [
        None if isinstance(answer, Annotation) else f"{answer.code}: {answer}" for answer in answers
    ]
    fields = column_of(annotations, _ANNOTATION).take(pa.array(places, pa.int32())).flatten()
    return pa.StructArray.from_arrays([*fields, pa.array(errors, pa.string())], fields=list(ANSWER))
