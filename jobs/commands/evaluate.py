"""`kosmos2 evaluate flickr30k` and `refcoco`: a model against the published figures."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from transformers.utils.logging import disable_progress_bar

from jobs.terminal import counting_bar
from kosmos2_core.annotation import Annotation
from kosmos2_core.annotator import Annotator
from kosmos2_core.benchmarks.published import FLICKR30K, REFCOCO
from kosmos2_core.benchmarks.queries import (
    GROUND_NEXT,
    Query,
    by_image,
    flickr30k_queries,
    refcoco_queries,
)
from kosmos2_core.benchmarks.recall import QueryResult, query_result, recall, reliability
from kosmos2_core.errors import ImageError
from kosmos2_core.images.decode import decode_image
from kosmos2_core.prompts.tasks import GROUND
from kosmos2_core.shared_annotator import SharedAnnotator
from pipeline.concurrency import in_order
from pipeline.errors import InputMissing, SpecError

_COCO_FOLDERS = ("", "train2014", "val2014")
_PICTURES = 4  # at a time: their queries together keep the engine full


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """In percent; `published` None where it is not known."""

    name: str
    measured: float
    published: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """`limit`: only the first so many pictures."""

    annotations: Path
    images: Path
    limit: int | None


def evaluate_flickr30k(files: Files, *, model: str, split: str | None, out: Path | None) -> None:
    answers = _answers(files, model, flickr30k_queries)
    published = FLICKR30K[split] if split else (None, None, None)
    measures = [
        Measure(name=f"R@{k}", measured=100 * recall(answers, k), published=value)
        for k, value in zip((1, 5, 10), published, strict=True)
    ]
    _report(answers, measures, out, limit=files.limit)


def evaluate_refcoco(
    files: Files, *, model: str, dataset: str, split: str | None, out: Path | None
) -> None:
    if split and (dataset, split) not in REFCOCO:
        known = ", ".join(each for name, each in REFCOCO if name == dataset)
        raise SpecError(f"{dataset} has no split {split!r}; there are: {known}")
    answers = _answers(files, model, refcoco_queries)
    published = REFCOCO[dataset, split] if split else None
    measures = [
        Measure(name="accuracy", measured=100 * recall(answers, 1), published=published),
        Measure(name="any box right", measured=100 * recall(answers, None), published=None),
    ]
    _report(answers, measures, out, limit=files.limit)


def _answers(files: Files, model: str, read: Callable[[Path], list[Query]]) -> list[QueryResult]:
    try:
        pictures = dict(islice(by_image(read(files.annotations)).items(), files.limit))
    except (ValueError, OSError) as error:
        raise SpecError(str(error)) from error
    paths = {name: _path(files.images, name) for name in pictures}
    disable_progress_bar()
    annotator = SharedAnnotator(Annotator.from_pretrained(model, tasks=(GROUND, GROUND_NEXT)))
    calls = (partial(_ask, annotator, paths[name], pictures[name]) for name in pictures)
    answers: list[QueryResult] = []
    with ThreadPoolExecutor(_PICTURES) as pool, counting_bar("pictures") as observe:
        for number, found in enumerate(in_order(pool, calls, ahead=_PICTURES), start=1):
            answers += found
            observe(number, len(pictures))
    return answers


def _path(images: Path, name: str) -> Path:
    """Raises InputMissing before anything is asked."""
    for folder in _COCO_FOLDERS:
        if (path := images / folder / name).is_file():
            return path
    raise InputMissing(f"{images} has no {name}, nor has its train2014 or val2014; check the name")


def _ask(annotator: SharedAnnotator, path: Path, queries: Sequence[Query]) -> list[QueryResult]:
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
    answers: Sequence[QueryResult],
    measures: Iterable[Measure],
    out: Path | None,
    *,
    limit: int | None,
) -> None:
    measures, found = list(measures), reliability(answers)
    without = sum(not answer.ious for answer in answers)
    console = Console()
    console.print(*_tables(answers, measures), sep="\n")
    console.print(
        f"{len(answers)} phrases, {without} of them without a box; score and share of right boxes "
        f"differ by {found.error:.3f} on average",
        highlight=False,
    )
    if limit is not None:
        console.print(
            f"only {limit} pictures: not to be compared with what was published", highlight=False
        )
    if out is not None:
        body = {
            "phrases": len(answers),
            "without_box": without,
            "measures": [asdict(measure) for measure in measures],
            "reliability": asdict(found),
        }
        out.write_text(json.dumps(body, indent=2))


def _tables(answers: Sequence[QueryResult], measures: Iterable[Measure]) -> Iterator[Table]:
    table = Table("", "measured", "published")
    for measure in measures:
        published = "" if measure.published is None else f"{measure.published:.2f} %"
        table.add_row(measure.name, f"{measure.measured:.2f} %", published)
    yield table
    scores = Table("score", "boxes", "mean score", "right")
    for each in reliability(answers).bins:
        scores.add_row(
            f"{each.low:.1f} to {each.high:.1f}",
            str(each.count),
            f"{each.score:.3f}",
            f"{each.right:.3f}",
        )
    yield scores
