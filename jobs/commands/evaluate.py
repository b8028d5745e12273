"""`kosmos2 evaluate`: how good a model is, on drawn scenes and on public benchmarks."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from cyclopts import Parameter

from jobs.options.groups import AsJson
from jobs.options.places import check_file, check_folder
from jobs.terminal import DataTable, counting_bar, print_json, print_results
from kosmos2_core.annotation import Annotation
from kosmos2_core.benchmarks.published import FLICKR30K, REFCOCO
from kosmos2_core.benchmarks.queries import (
    GROUND_NEXT,
    Query,
    by_image,
    flickr30k_queries,
    refcoco_queries,
)
from kosmos2_core.benchmarks.recall import (
    QueryResult,
    Reliability,
    query_result,
    recall,
    reliability,
)
from kosmos2_core.errors import ImageError
from kosmos2_core.images.decode import decode_image
from kosmos2_core.prompts.tasks import GROUND
from pipeline.concurrency import in_order
from pipeline.errors import InputMissing, SpecError
from pipeline.exit_codes import ExitCode

if TYPE_CHECKING:
    from kosmos2_core.shared_annotator import SharedAnnotator

_REAL_MODEL = "microsoft/kosmos-2-patch14-224"
_COCO_FOLDERS = ("", "train2014", "val2014")
_IMAGES_AT_ONCE = 4  # their queries together keep the engine full

_Model = Annotated[
    str, Parameter(help="Model checkpoint: a Hub id, a directory, a URL of a folder, or `shapes`.")
]
_Limit = Annotated[int | None, Parameter(help="Evaluate the first N images only.")]


def shapes_command(*, model: str = "shapes", scenes: int = 1500, json: AsJson = False) -> int:
    """Evaluate the embedded checkpoint on drawn scenes that it was not trained on, task by task.

    A second split is hard on purpose. It shows how well each score ranks right boxes above wrong
    ones. This takes some minutes.

    Parameters
    ----------
    model
        Checkpoint that was trained on drawn scenes: `shapes`, a directory, a URL of a folder or a
        Hub id.
    scenes
        Number of scenes, besides those of the hard split.
    """
    from kosmos2_core.shapes.evaluation import hard, samplers
    from kosmos2_core.shapes.evaluation.evaluate import evaluate_checkpoint, figures, figures_table
    from pipeline.models.staging import stage_model

    directory = stage_model(model).directory
    result, boxes = evaluate_checkpoint(directory, scenes), hard.scored_boxes(directory)
    by_sampling = list(samplers.outcomes(directory))
    pages = [
        figures_table(result),
        hard.auc_table(boxes),
        "\n".join(map(samplers.line, by_sampling)),
    ]
    body = {
        "scenes": scenes,
        "figures": [asdict(figure) for figure in figures(result)],
        "hard": [asdict(row) for row in hard.discrimination(boxes)],
        "samplings": [asdict(outcome) for outcome in by_sampling],
    }
    if json:
        print_json(body)
    else:
        print_results("\n\n".join(pages))
    return ExitCode.DONE


def flickr30k_command(
    annotations: Path,
    images: Path,
    /,
    *,
    split: Literal["val", "test"] | None = None,
    model: _Model = _REAL_MODEL,
    limit: _Limit = None,
    json: AsJson = False,
) -> int:
    """Evaluate phrase grounding on Flickr30k Entities: R@1, R@5, R@10, any-box protocol.

    The published figures are shown beside them. The prompt for a phrase holds the words of the
    caption that come before it. Boxes rank in the order of generation.

    ```
    kosmos2 evaluate flickr30k final_flickr_separateGT_test.json flickr30k-images/ --split test
    ```

    Parameters
    ----------
    annotations
        Annotation file of MDETR: final_flickr_separateGT_val.json or _test.json.
    images
        Folder of the Flickr30k images.
    split
        Split whose published figures to show.
    """
    files = _Files(annotations=annotations, images=images, limit=limit)
    answers = _answers(files, model, flickr30k_queries)
    published = FLICKR30K[split] if split else (None, None, None)
    measures = [
        _Measure(name=f"R@{k}", measured=100 * recall(answers, k), published=value)
        for k, value in zip((1, 5, 10), published, strict=True)
    ]
    _report(answers, measures, files, as_json=json)
    return ExitCode.DONE


def refcoco_command(
    annotations: Path,
    images: Path,
    /,
    *,
    dataset: Literal["refcoco", "refcoco+", "refcocog"] = "refcoco",
    split: Literal["val", "testA", "testB", "test"] | None = None,
    model: _Model = _REAL_MODEL,
    limit: _Limit = None,
    json: AsJson = False,
) -> int:
    """Evaluate referring expressions on RefCOCO, RefCOCO+ or RefCOCOg: accuracy at IoU 0.5.

    The published figure is shown beside it. The first box of an answer counts.

    ```
    kosmos2 evaluate refcoco finetune_refcoco+_testA.json coco/ --dataset refcoco+ --split testA
    ```

    Parameters
    ----------
    annotations
        Annotation file of MDETR, such as finetune_refcoco_val.json.
    images
        Folder of the COCO 2014 images, directly in it or in train2014/ and val2014/.
    dataset
        Dataset that the annotation file belongs to.
    split
        Split whose published figure to show.
    """
    files = _Files(annotations=annotations, images=images, limit=limit)
    if split and (dataset, split) not in REFCOCO:
        known = ", ".join(each for name, each in REFCOCO if name == dataset)
        raise SpecError(f"{dataset} has no split {split!r}; there are: {known}")
    answers = _answers(files, model, refcoco_queries)
    published = REFCOCO[dataset, split] if split else None
    measures = [
        _Measure(name="accuracy", measured=100 * recall(answers, 1), published=published),
        _Measure(name="any box right", measured=100 * recall(answers, None), published=None),
    ]
    _report(answers, measures, files, as_json=json)
    return ExitCode.DONE


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measure:
    """A figure in percent, beside the published one if there is one."""

    name: str
    measured: float
    published: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Files:
    """Files of a benchmark, and how many of its images to use."""

    annotations: Path
    images: Path
    limit: int | None

    def __post_init__(self) -> None:
        check_file(self.annotations)
        check_folder(self.images)


def _answers(files: _Files, model: str, read: Callable[[Path], list[Query]]) -> list[QueryResult]:
    from kosmos2_core.annotator import Annotator
    from kosmos2_core.shared_annotator import SharedAnnotator
    from pipeline.models.staging import stage_model

    try:
        of_image = dict(islice(by_image(read(files.annotations)).items(), files.limit))
    except (ValueError, OSError) as error:
        raise SpecError(str(error)) from error
    paths = {name: _path(files.images, name) for name in of_image}
    annotator = SharedAnnotator(
        Annotator.from_pretrained(stage_model(model), tasks=(GROUND, GROUND_NEXT))
    )
    calls = (partial(_ask, annotator, paths[name], of_image[name]) for name in of_image)
    answers: list[QueryResult] = []
    with ThreadPoolExecutor(_IMAGES_AT_ONCE) as pool, counting_bar("images") as observe:
        for number, found in enumerate(in_order(pool, calls, ahead=_IMAGES_AT_ONCE), start=1):
            answers += found
            observe(number, len(of_image))
    return answers


def _path(images: Path, name: str) -> Path:
    """Return the path of an image. Raises InputMissing."""
    for folder in _COCO_FOLDERS:
        if (path := images / folder / name).is_file():
            return path
    raise InputMissing(f"{images} has no {name}, nor has its train2014 or val2014; check the name")


def _ask(annotator: "SharedAnnotator", path: Path, queries: Sequence[Query]) -> list[QueryResult]:
    try:
        pixels = decode_image(path.read_bytes()).pixels[np.newaxis]
    except ImageError as error:
        raise SpecError(f"{path} cannot be decoded: {error}") from error
    tasks, fields = [query.task for query in queries], [query.fields for query in queries]
    ((said),) = annotator.answer_pixels(pixels, tasks, [fields])
    # What cannot be asked or answered is not answered rightly.
    return [
        query_result(query, answer)
        if isinstance(answer, Annotation)
        else QueryResult(ious=(), score=None)
        for query, answer in zip(queries, said, strict=True)
    ]


def _report(
    answers: Sequence[QueryResult], measures: Sequence[_Measure], files: _Files, *, as_json: bool
) -> None:
    found = reliability(answers)
    without = sum(not answer.ious for answer in answers)
    if as_json:
        print_json(
            {
                "phrases": len(answers),
                "without_box": without,
                "limit": files.limit,
                "measures": [asdict(measure) for measure in measures],
                "reliability": asdict(found),
            }
        )
        return
    print_results(
        *_tables(found, measures),
        f"{len(answers)} phrases, {without} of them without a box; score and share of right boxes "
        f"differ by {found.error:.3f} on average",
    )
    if files.limit is not None:
        print_results(f"only {files.limit} images: not to be compared with the published figures")


def _tables(found: Reliability, measures: Iterable[_Measure]) -> Iterator[DataTable]:
    figures_table = DataTable("", "measured", "published")
    for measure in measures:
        published = "" if measure.published is None else f"{measure.published:.2f} %"
        figures_table.add_row(measure.name, f"{measure.measured:.2f} %", published)
    yield figures_table
    scores = DataTable("score", "boxes", "mean score", "right")
    for each in found.bins:
        scores.add_row(
            f"{each.low:.1f} to {each.high:.1f}",
            str(each.count),
            f"{each.score:.3f}",
            f"{each.right:.3f}",
        )
    yield scores
