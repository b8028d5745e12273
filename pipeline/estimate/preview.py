"""A page of the answers that a trial made: each image once, with the answers of all its tasks."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from pipeline.dataset.shards import Shard
from pipeline.estimate.trial import Trial, input_samples
from pipeline.report.cards import Card, card
from pipeline.report.contact_sheet import about_model, sheet_page, thumbnails
from pipeline.spec.job import JobSpec

_SIDE = 480


def preview_page(spec: JobSpec, tried: Trial, shards: Sequence[Shard]) -> Iterator[str]:
    """Yield pieces of an HTML page with the answers of the trial, by shard and index.

    Several tasks are shown side by side. `shards` are those of the plan. An image that can no
    longer be fetched leaves a note.
    """
    images: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in sorted(tried.answers, key=lambda row: (row["shard_id"], row["index"])):
        images.setdefault((row["shard_id"], row["index"]), []).append(row)
    shown = thumbnails(
        [rows[0] for rows in images.values()],
        {shard.shard_id: shard for shard in shards}.__getitem__,
        input_samples(spec),
        exif=spec.exif,
        side=_SIDE,
    )
    cards = (_card(rows, has_title=len(spec.task_names) > 1) for rows in images.values())
    return sheet_page(
        zip(cards, shown, strict=True),
        about=(spec.input, about_model(tried.model)),
        heading="Preview",
        noun="images",
    )


def _card(rows: Sequence[dict[str, Any]], *, has_title: bool) -> Card:
    first, *others = (card(row, side=_SIDE, title=row["task"] if has_title else "") for row in rows)
    return replace(first, beside=tuple(others))
