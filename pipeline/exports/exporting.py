"""The course of an export: checks, sections, and the README."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.dataset.commit import Committed, job_metadata
from pipeline.dataset.dataset import StoredDataset
from pipeline.dataset.ledger import Ledger
from pipeline.errors import SpecError
from pipeline.exports.categories import HEAD_NOUN, OBJECT, categories_from
from pipeline.exports.coverage import Coverage
from pipeline.exports.destination import Destination
from pipeline.exports.formats.protocol import Format
from pipeline.exports.formats.registry import EXPORT_FORMATS
from pipeline.exports.manifest import FormerExport, former_export, write_manifest
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
from pipeline.review.curve import Curve
from pipeline.review.judgements import curve_of
from pipeline.spec.access import DestAccess
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

    If it holds a finished export of the same dataset with the same options, only the shards are
    written that are new, or all if the format needs all at once. `observe` is called after each
    shard; `run` exports the sections. Raises SpecError if the format does not support the options
    or the destination is taken, PipelineError if storage fails or an input whose images are needed
    has changed.
    """
    chosen = EXPORT_FORMATS[options.format]
    tasks = _tasks(dataset, options, chosen)
    options = options.model_copy(update={"images": _images(options, chosen)})
    _check_parallel(options, chosen)
    curve = _curve(dataset, options)
    categories = categories_from(options.categories)
    root = root_of(dataset.plan.shards)
    settings = _settings(dataset, options, tasks, root, curve)
    commits = Ledger(dataset.store).summaries()
    with Destination(destination) as place:
        former = _former(place, destination, options, settings, commits)
        shards = _new_shards(dataset, commits, former)
        if former is not None and not shards:
            return _kept(dataset, former)
        is_anew = former is not None and not _can_be_added_to(options, chosen)
        if former is not None and is_anew:
            former, shards = None, _new_shards(dataset, commits, None)
        export_id = place.begin(
            options.format,
            folders=chosen.folders_of(options.shares),
            files=(README_KEY, CROISSANT_KEY, *chosen.files),
            overwrite=options.overwrite or is_anew,
            kept=former.export_id if former else None,
        )
        work = ExportContext(
            export_id=export_id,
            source=dataset.store,
            record=dataset.record,
            inputs=inputs,
            destination=destination,
            options=options,
            tasks=tasks,
            root=root,
            categories=categories,
            lengths=_lengths(dataset) if chosen.is_by_shard else {},
            curve=curve,
        )
        sections = _sections(shards, options.parallel, former.next_section if former else None)
        so_far: dict[int, Written] = {}
        for section, written in run(work, sections):
            so_far[section.number or 0] = written
            coverage = _sum(dataset, so_far, former)
            observe(coverage)
        if former is None and not any(written.files for written in so_far.values()):
            for _, written in in_turn(work, [Section()]):
                so_far[len(sections)] = written
        parts: list[FormerExport | Written] = [] if former is None else [former]
        parts += [so_far[number] for number in sorted(so_far)]
        _write_papers(place, dataset, work, so_far[min(so_far)].classes, coverage)
        write_manifest(destination, [shard for part in parts for shard in part.shards])
        _finish(place, dataset, options, parts, settings, coverage)
    return coverage


def _write_papers(
    place: Destination,
    dataset: StoredDataset,
    work: ExportContext,
    classes: Sequence[str],
    coverage: Coverage,
) -> None:
    """Write what is about the whole export."""
    options, chosen = work.options, EXPORT_FORMATS[work.options.format]
    score = score_note(options.score, work.curve)
    papers = {
        **chosen.common(classes, coverage),
        README_KEY: dataset_card(dataset, options, chosen, coverage, score).encode(),
        CROISSANT_KEY: croissant_json(dataset, options, chosen, coverage, work.tasks, score),
    }
    for key, data in papers.items():
        place.write(key, data)


def _finish(
    place: Destination,
    dataset: StoredDataset,
    options: ExportOptions,
    parts: Sequence[FormerExport | Written],
    settings: Mapping[str, Any],
    coverage: Coverage,
) -> None:
    files = sum(part.files for part in parts)
    size_bytes = sum(part.size_bytes for part in parts)
    if options.parallel > 1:
        place.check_files(files)
    place.finish(
        {
            "source": dataset.store.uri,
            **job_metadata(dataset.record),
            "options": options.model_dump(exclude_defaults=True),
            "settings": settings,
            "coverage": coverage.summary(),
            "files": place.files + files,
            "size_bytes": place.size_bytes + size_bytes,
            "section_files": files,
            "section_bytes": size_bytes,
        }
    )


def _curve(dataset: StoredDataset, options: ExportOptions) -> Curve | None:
    """Return the curve that calibrates the scores, if they shall be. Raises SpecError."""
    if options.score == "consistency" and not dataset.record.identity.verify_boxes:
        raise SpecError(
            f"{dataset.store.uri} has no consistencies, so --score consistency cannot be used; "
            "choose another --score, or annotate with --verify-boxes"
        )
    return curve_of(dataset.store) if options.score == "calibrated" else None


# Options that may differ from those of the export that shards are added to.
_FREE_OPTIONS = {
    *("parallel", "overwrite", "file_size_mb", "images_per_file", "license", "citation", "creator"),
    *DestAccess.model_fields,
}


def _settings(
    dataset: StoredDataset,
    options: ExportOptions,
    tasks: tuple[str, ...],
    root: str,
    curve: Curve | None,
) -> dict[str, Any]:
    """Return what all shards of an export have in common, for JSON."""
    chosen = options.model_dump(mode="json", exclude=_FREE_OPTIONS)
    settings = {
        **{"source": dataset.store.uri, "fingerprint": dataset.record.fingerprint},
        **{**chosen, "task": list(tasks)},
        "folder of all inputs": root,
    }
    if options.categories not in (OBJECT, HEAD_NOUN):
        content = Path(options.categories).read_bytes()
        settings["content of --categories"] = hashlib.sha256(content).hexdigest()
    if curve is not None:
        settings["set of judgements"] = hashlib.sha256(repr(curve).encode()).hexdigest()
    return settings


def _former(
    place: Destination,
    destination: OutputStore,
    options: ExportOptions,
    settings: Mapping[str, Any],
    commits: Mapping[str, Committed],
) -> FormerExport | None:
    """Return the finished export that shards can be added to; None if there is none to keep."""
    record = None if options.overwrite else place.finished()
    if record is None:
        return None
    ids = {shard_id: commit.commit_id for shard_id, commit in commits.items()}
    return former_export(destination, record.export_id, record.details, settings, ids)


def _new_shards(
    dataset: StoredDataset, commits: Mapping[str, Committed], former: FormerExport | None
) -> tuple[PlannedShard, ...]:
    known = {shard.shard_id for shard in former.shards} if former else set()
    return tuple(
        (ordinal, shard)
        for ordinal, shard in enumerate(dataset.plan.shards)
        if shard.shard_id in commits and shard.shard_id not in known
    )


def _kept(dataset: StoredDataset, former: FormerExport) -> Coverage:
    coverage = former.coverage
    coverage.shards_planned = len(dataset.plan.shards)
    coverage.shards_kept = coverage.shards_exported
    return coverage


def _can_be_added_to(options: ExportOptions, chosen: Format) -> bool:
    """Return whether files of new shards can lie beside the others; classes must not move."""
    return chosen.can_be_parallel and options.categories != HEAD_NOUN


def _sections(shards: tuple[PlannedShard, ...], count: int, number: int | None) -> list[Section]:
    """Split shards evenly into `count` sections, or fewer if there are fewer.

    Their numbers begin with `number`, if they are added to an export.
    """
    if count == 1:
        return [Section(shards=shards, number=number)]
    count = max(min(count, len(shards)), 1)
    ends = [len(shards) * i // count for i in range(count + 1)]
    return [
        Section(shards=shards[ends[i] : ends[i + 1]], number=(number or 0) + i)
        for i in range(count)
    ]


def _lengths(dataset: StoredDataset) -> dict[str, int]:
    """Return the planned rows of each input file that is cut into ranges of rows."""
    lengths = dict[str, int]()
    for shard in dataset.plan.shards:
        if shard.count is not None and shard.kind not in LISTED_KINDS:
            end = shard.first + shard.count
            lengths[shard.uri] = max(lengths.get(shard.uri, 0), end)
    return lengths


def _sum(
    dataset: StoredDataset, so_far: Mapping[int, Written], former: FormerExport | None
) -> Coverage:
    """Add up the sections in the order of the plan, not in the order of arrival."""
    coverage = Coverage(shards_planned=len(dataset.plan.shards))
    if former is not None:
        coverage.include(former.coverage)
        coverage.shards_kept = former.coverage.shards_exported
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
