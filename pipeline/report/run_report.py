"""The run report: one HTML page about a whole dataset, finished or not."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode

import numpy as np

from pipeline.costs.costs import Costs
from pipeline.costs.text import cost_lines
from pipeline.costs.throughput import Throughput, Timed, throughput_of
from pipeline.dataset.dataset import StoredDataset
from pipeline.dataset.layout import ANNOTATIONS, annotations_key
from pipeline.dataset.ledger import Failure, Ledger, Totals
from pipeline.dataset.spending import costs_of_dataset
from pipeline.progress import ObserveShards
from pipeline.reading.sample_reader import SampleReader
from pipeline.report.charts import Histogram, heat_map, histogram, trimmed
from pipeline.report.figures import MOST_BOXES, MOST_WORDS, SCORE_BINS, Boxes, DatasetFigures
from pipeline.report.pages import page
from pipeline.report.reasons import Reason
from pipeline.report.rejected_images import RejectedImage, rejected_images
from pipeline.report.scan import Scan, scan
from pipeline.storage import InputStore

_PHRASES = 30
_FAILURES = 20
_WORD_BINS = 40

Link = Callable[..., str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """The contents of the page. `failures` are shards by id."""

    dataset: StoredDataset
    scan: Scan
    totals: Totals
    failures: dict[str, Failure]
    throughput: Throughput | None
    rejected: dict[Reason, list[RejectedImage]]
    costs: Costs | None

    @property
    def figures(self) -> DatasetFigures:
        return self.scan.figures


def run_report(
    dataset: StoredDataset,
    inputs: InputStore,
    observe: ObserveShards = lambda done, of: None,
    *,
    gpu_hour_cost: float | None = None,
) -> RunReport:
    """Read all commits. Raises PipelineError if one cannot be read.

    `gpu_hour_cost` is the price of one GPU hour; None takes that of the job.

    Memory holds the counts, a few numbers for each shard, and some batches of rows.
    """
    ledger = Ledger(dataset.store)
    times = dataset.store.times(ANNOTATIONS)
    committed = sorted(ledger.committed())
    found = scan(dataset.store, committed, observe)
    timed = [
        Timed(at=times[key], images=commit.samples)
        for commit in found.commits
        if (key := annotations_key(commit.shard_id)) in times
    ]
    failures = ledger.failed(set(committed))
    return RunReport(
        dataset=dataset,
        scan=found,
        totals=Totals.of(found.commits),
        failures=failures,
        costs=costs_of_dataset(dataset, found.commits, failures, gpu_hour_cost),
        throughput=throughput_of(timed, datetime.fromisoformat(dataset.record.created_at)),
        rejected=rejected_images(
            found.reasons,
            {shard.shard_id: shard for shard in dataset.plan.shards},
            SampleReader.of_job(inputs, dataset.record.identity),
            dataset.record.identity.exif,
        ),
    )


def report_page(report: RunReport, *, sheet: str | None) -> Iterator[str]:
    """Yield pieces of HTML.

    `sheet` is the contact sheet's path relative to the page; None: no links.
    """
    link = _linker(sheet)
    figures, boxes = report.figures, report.figures.all_boxes()
    record = report.dataset.record
    return page(
        "run_report.html.jinja",
        styles=("page.css", "run_report.css"),
        output=report.dataset.store.uri,
        model=record.model,
        fingerprint=record.fingerprint,
        sheet=link(),
        tiles=_tiles(report, boxes),
        tasks=[_task(report, task, link) for task in sorted(figures.by_task)],
        costs=list(cost_lines(report.costs)) if report.costs is not None else [],
        throughput=report.throughput,
        speed=_speed(report.throughput) if report.throughput else None,
        failures=[asdict(f) for f in list(report.failures.values())[:_FAILURES]],
        more_failures=max(len(report.failures) - _FAILURES, 0),
        reasons=_ranked(report.scan.reasons.counts, lambda reason: ""),
        rejected=report.rejected,
        scores=_scores(boxes, link),
        boxes=boxes,
        per_image=histogram(trimmed(boxes.per_image), lambda i: _open_ended(i, MOST_BOXES)),
        coverage=heat_map(boxes.coverage),
        sizes=heat_map(boxes.sizes),
        lengths=_lengths(figures),
        flags=_ranked(figures.flags.counts, lambda flag: link(flag=flag)),
        phrases=_ranked(
            dict(figures.words.phrases.top(_PHRASES)), lambda phrase: link(phrase=phrase)
        ),
        phrases_missed=figures.words.phrases.missed,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """A line of a table with a bar: `share` of the largest, in percent."""

    name: Any
    count: str
    share: float
    link: str


def _ranked(counts: Any, link: Callable[[Any], str]) -> list[Ranked]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    most = ordered[0][1] if ordered else 1
    return [
        Ranked(name=name, count=f"{count:,}", share=round(100 * count / most, 2), link=link(name))
        for name, count in ordered
    ]


def _linker(sheet: str | None) -> Link:
    """Return a function that links to the contact sheet with form fields; "" without a sheet."""

    def link(**fields: str) -> str:
        if sheet is None:
            return ""
        return quote(sheet) + (f"#{urlencode(fields)}" if fields else "")

    return link


def _tiles(report: RunReport, boxes: Boxes) -> list[tuple[str, str, str]]:
    """Return name, figure and remark of each tile."""
    totals, planned = report.totals, len(report.dataset.plan.shards)
    left = planned - totals.shards - len(report.failures)
    rows = totals.annotated + totals.rejected
    clean = sum(report.figures.flags.clean.values())
    cut = f"{totals.truncated_shards:,} inputs cut off"
    tiles = [
        ("shards committed", f"{totals.shards:,}", f"of {planned:,}; {left:,} left"),
        ("shards failed", f"{len(report.failures):,}", cut if totals.truncated_shards else ""),
        ("images", f"{totals.samples:,}", ""),
        ("annotations", f"{totals.annotated:,}", f"{_percent(clean, totals.annotated)} unflagged"),
        ("rejections", f"{totals.rejected:,}", f"{_percent(totals.rejected, rows)} of all"),
        ("phrases with boxes", f"{boxes.phrases:,}", ""),
        ("boxes", f"{boxes.boxes:,}", f"{_mean(boxes.boxes, totals.annotated)} per annotation"),
    ]
    if (throughput := report.throughput) is not None:
        worked = f"over {duration(throughput.worked_s)} of work"
        tiles.append(("images/s", f"{throughput.images_per_s:,.1f}", worked))
    return tiles


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "none"


def _mean(total: int, count: int) -> str:
    return f"{total / count:.2f}" if count else "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLine:
    name: str
    annotations: str
    clean: str
    boxes: str
    link: str


def _task(report: RunReport, task: str, link: Link) -> TaskLine:
    figures, count = report.figures, report.figures.by_task[task]
    return TaskLine(
        name=task,
        annotations=f"{count:,}",
        clean=_percent(figures.flags.clean[task], count),
        boxes=_mean(figures.boxes[task].boxes, count),
        link=link(task=task),
    )


def _speed(throughput: Throughput) -> Histogram:
    width_s = throughput.worked_s / len(throughput.bins)
    return histogram(
        throughput.bins,
        lambda i: f"{duration(i * width_s)} to {duration((i + 1) * width_s)}",
        value="{:,.1f} images/s".format,
        ends=("0 s", duration(throughput.worked_s)),
    )


def _scores(boxes: Boxes, link: Link) -> Histogram:
    def edges(i: int) -> tuple[str, str]:
        return f"{i / SCORE_BINS:.2f}", f"{(i + 1) / SCORE_BINS:.2f}"

    return histogram(
        boxes.scores.in_bins(SCORE_BINS),
        lambda i: " to ".join(edges(i)),
        link=lambda i: link(**dict(zip(("min", "max"), edges(i), strict=True))),
    )


def _lengths(figures: DatasetFigures) -> Histogram:
    lengths = trimmed(figures.words.lengths)
    width = -(-len(lengths) // _WORD_BINS)
    padded = np.pad(lengths, (0, -len(lengths) % width)).reshape(-1, width).sum(axis=1)

    def label(i: int) -> str:
        first, last = i * width, (i + 1) * width - 1
        if last >= MOST_WORDS or width == 1:
            return _open_ended(first, MOST_WORDS)
        return f"{first} to {last}"

    return histogram(padded, label)


def _open_ended(number: int, most: int) -> str:
    return f"{number} or more" if number >= most else str(number)
