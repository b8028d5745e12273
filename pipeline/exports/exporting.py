"""The course of an export: checks, sections, and the README."""

from collections.abc import Callable, Mapping, Sequence

from pipeline.dataset.commit import job_metadata
from pipeline.dataset.dataset import StoredDataset
from pipeline.dataset.ledger import Ledger
from pipeline.errors import SpecError
from pipeline.exports.categories import HEAD_NOUN, categories_from
from pipeline.exports.coverage import Coverage
from pipeline.exports.destination import Destination
from pipeline.exports.formats.protocol import Format
from pipeline.exports.formats.registry import EXPORT_FORMATS
from pipeline.exports.options import ExportOptions
from pipeline.exports.papers.card import dataset_card, score_note
from pipeline.exports.papers.croissant import CROISSANT_KEY, croissant_json
from pipeline.exports.references import root_of
from pipeline.exports.sections import (
    ExportContext,
    PlannedShard,
    RunSections,
    Section,
    Written,
    in_turn,
)
from pipeline.review.judgements import curve_of
from pipeline.spec.kinds import LISTED_KINDS
from pipeline.storage import InputStore, OutputStore

README_KEY = "README.md"


def export_dataset(
    dataset: StoredDataset,
    inputs: InputStore,
    destination: OutputStore,
    options: ExportOptions,
    observe: Callable[[Coverage], None] = lambda _: None,
    run: RunSections = in_turn,
) -> Coverage:
    """Write all commits of `dataset` to `destination`.

    `observe` is called after each shard; `run` exports the sections. Raises SpecError if the format
    does not support the options or the destination is taken, PipelineError if storage fails or an
    input whose images are needed has changed.
    """
    chosen = EXPORT_FORMATS[options.format]
    tasks = _tasks(dataset, options, chosen)
    options = options.model_copy(update={"images": _images(options, chosen)})
    _check_parallel(options, chosen)
    if options.score == "consistency" and not dataset.record.identity.verify_boxes:
        raise SpecError(
            f"{dataset.store.uri} has no consistencies, so --score consistency cannot be used; "
            "choose another --score, or annotate with --verify-boxes"
        )
    curve = curve_of(dataset.store) if options.score == "calibrated" else None
    categories = categories_from(options.categories)
    with Destination(destination) as place:
        export_id = place.begin(
            options.format,
            folders=chosen.folders_of(options.shares),
            files=(README_KEY, CROISSANT_KEY, *chosen.files),
            overwrite=options.overwrite,
        )
        work = ExportContext(
            export_id=export_id,
            source=dataset.store,
            record=dataset.record,
            inputs=inputs,
            destination=destination,
            options=options,
            tasks=tasks,
            root=root_of(dataset.plan.shards),
            categories=categories,
            lengths=_lengths(dataset) if chosen.is_by_shard else {},
            curve=curve,
        )
        sections = _sections(dataset, options.parallel)
        so_far: dict[int, Written] = {}
        for section, written in run(work, sections):
            so_far[section.number or 0] = written
            coverage = _sum(dataset, so_far)
            observe(coverage)
        if not any(written.files for written in so_far.values()):
            for _, written in in_turn(work, [Section()]):
                so_far[len(sections)] = written
        for key, data in chosen.common(so_far[0].classes, coverage).items():
            place.write(key, data)
        score = score_note(options.score, curve)
        place.write(README_KEY, dataset_card(dataset, options, chosen, coverage, score).encode())
        place.write(CROISSANT_KEY, croissant_json(dataset, options, chosen, coverage, tasks, score))
        _finish(place, dataset, options, coverage, list(so_far.values()))
    return coverage


def _finish(
    place: Destination,
    dataset: StoredDataset,
    options: ExportOptions,
    coverage: Coverage,
    sections: Sequence[Written],
) -> None:
    files = sum(written.files for written in sections)
    if options.parallel > 1:
        place.check_files(files)
    place.finish(
        {
            "source": dataset.store.uri,
            **job_metadata(dataset.record),
            "options": options.model_dump(exclude_defaults=True),
            "coverage": coverage.summary(),
            "files": place.files + files,
            "size_bytes": place.size_bytes + sum(written.size_bytes for written in sections),
        }
    )


def _sections(dataset: StoredDataset, count: int) -> list[Section]:
    """Split the committed shards evenly into `count` sections, or fewer if there are fewer."""
    committed = Ledger(dataset.store).committed()
    shards: tuple[PlannedShard, ...] = tuple(
        (ordinal, shard)
        for ordinal, shard in enumerate(dataset.plan.shards)
        if shard.shard_id in committed
    )
    if count == 1:
        return [Section(shards=shards)]
    count = max(min(count, len(shards)), 1)
    ends = [len(shards) * i // count for i in range(count + 1)]
    return [Section(shards=shards[ends[i] : ends[i + 1]], number=i) for i in range(count)]


def _lengths(dataset: StoredDataset) -> dict[str, int]:
    """Return the planned rows of each input file that is cut into ranges of rows."""
    lengths = dict[str, int]()
    for shard in dataset.plan.shards:
        if shard.count is not None and shard.kind not in LISTED_KINDS:
            end = shard.first + shard.count
            lengths[shard.uri] = max(lengths.get(shard.uri, 0), end)
    return lengths


def _sum(dataset: StoredDataset, so_far: Mapping[int, Written]) -> Coverage:
    """Add up the sections in the order of the plan, not in the order of arrival."""
    coverage = Coverage(shards_planned=len(dataset.plan.shards))
    for number in sorted(so_far):
        coverage.include(so_far[number].coverage)
    return coverage


def _check_parallel(options: ExportOptions, chosen: Format) -> None:
    if options.parallel == 1:
        return
    if not chosen.can_be_parallel:
        raise SpecError(
            f"{options.format} needs all images in one place, so it cannot be exported in "
            "sections; leave out --parallel"
        )
    if options.categories == HEAD_NOUN:
        raise SpecError(
            f"--categories {HEAD_NOUN} numbers classes in order of occurrence, which differs "
            "between sections; give a JSON file of phrase: class, or leave out --parallel"
        )


def _tasks(dataset: StoredDataset, options: ExportOptions, chosen: Format) -> tuple[str, ...]:
    there = tuple(task.name for task in dataset.record.identity.tasks)
    if unknown := [task for task in options.task if task not in there]:
        raise SpecError(
            f"{dataset.store.uri} has no task {unknown[0]!r}; --task takes: {', '.join(there)}"
        )
    tasks = options.task or there
    if chosen.is_by_image and len(tasks) > 1:
        raise SpecError(
            f"{options.format} has one entry per image, but {dataset.store.uri} has annotations of "
            f"{len(tasks)} tasks; choose one with --task: {', '.join(tasks)}"
        )
    return tasks


def _images(options: ExportOptions, chosen: Format) -> str:
    if options.images == "embed" and not chosen.can_embed:
        raise SpecError(f"{options.format} cannot hold images; leave out --images embed")
    if options.categories != "object" and not chosen.has_classes:
        raise SpecError(f"{options.format} has phrases but no classes; leave out --categories")
    if chosen.is_by_shard and len(options.shares) > 1:
        raise SpecError(
            f"{options.format} has a file for each input file, so it has no splits; leave out "
            "--split"
        )
    if options.images == "auto":
        return "embed" if chosen.embeds else "reference"
    return options.images
