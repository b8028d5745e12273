"""A page of the largest differences: each image twice, with the boxes of both datasets."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from pipeline.comparison.diff import Diff
from pipeline.comparison.matching import Comparison
from pipeline.dataset.commit import open_commit
from pipeline.dataset.dataset import StoredDataset
from pipeline.dataset.shards import Shard
from pipeline.reading.sample_reader import SampleReader
from pipeline.report.cards import Card, card
from pipeline.report.contact_sheet import about_dataset, sheet_page, thumbnails
from pipeline.storage import InputStore

_SIDE = 480
_LEGEND = (
    "Largest differences first. Thin boxes are the same in A and B, dashed ones moved, thick ones "
    "are in one dataset only."
)


def diff_page(found: Diff, a: StoredDataset, b: StoredDataset, inputs: InputStore) -> Iterator[str]:
    """Yield pieces of an HTML page with the largest differences. `inputs` has the images of A.

    An image that can no longer be fetched or decoded leaves a note.
    """
    cards = [_side_by_side(each) for each in found.largest]
    images = thumbnails(
        [each.pair.a for each in found.largest],
        partial(_shard, a),
        SampleReader.of_job(inputs, a.record.identity),
        exif=a.record.identity.exif,
        side=_SIDE,
    )
    about = (f"A: {about_dataset(a)}", f"B: {about_dataset(b)}", _LEGEND)
    return sheet_page(
        zip(cards, images, strict=True), heading="Differences", noun="differences", about=about
    )


def _shard(dataset: StoredDataset, shard_id: str) -> Shard:
    with open_commit(dataset.store, shard_id) as commit:
        return commit.footer.shard()


def _side_by_side(found: Comparison) -> Card:
    a = card(found.pair.a, side=_SIDE, title="A", changes=found.changes_a)
    b = card(found.pair.b, side=_SIDE, title="B", changes=found.changes_b)
    return replace(a, beside=(replace(b, width=a.width, height=a.height),))
