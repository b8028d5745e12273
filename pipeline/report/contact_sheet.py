"""The contact sheet: a static HTML page of annotated images with boxes and coloured phrases.

The page holds its cards as JSON in chunks, and its script makes elements only for the visible page.
So ten thousand cards are as quick as ten. The page is written chunk by chunk and is never whole in
memory.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from itertools import islice
from typing import Any

import pyarrow as pa

from pipeline.concurrency import in_order
from pipeline.dataset.commit import open_commit
from pipeline.dataset.dataset import StoredDataset
from pipeline.dataset.ledger import Ledger
from pipeline.dataset.shards import Shard
from pipeline.errors import PipelineError
from pipeline.reading.row_images import Fetch, fetches
from pipeline.reading.sample_reader import SampleReader
from pipeline.report.cards import CARD_COLUMNS, Card, Thumbnail, card, thumbnail, thumbnail_size
from pipeline.report.pages import page
from pipeline.spacing import evenly_spaced
from pipeline.spec.identity import ResolvedModel
from pipeline.storage import InputStore

# Each shard is a file to read, and more shards add little information about a dataset.
ENOUGH_SHARDS = 200
_LEAST_SHARE = 10
CHUNK = 24  # cards; as many as the script shows at a time
_THREADS = 16
_IMAGES_AHEAD = 48
# Thumbnails of many images are smaller, to limit the size of the page.
_SIDE, _SMALL_SIDE, _MANY = 480, 256, 1000

_RowKey = tuple[int, str]  # index, task
Shown = tuple[Card, Thumbnail]


def contact_sheet(
    dataset: StoredDataset,
    inputs: InputStore,
    *,
    count: int,
    wanted: Mapping[str, set[_RowKey]] | None = None,
) -> Iterator[str]:
    """Yield pieces of an HTML page with `count` annotations, spread over the committed shards.

    `wanted` are rows that must be included, by shard id. Raises PipelineError if the output cannot
    be read. An image that can no longer be fetched or decoded leaves a note.
    """
    side = _SIDE if count <= _MANY else _SMALL_SIDE
    shares = _shares(_annotated(dataset), count)
    for shard_id in wanted or {}:
        shares.setdefault(shard_id, 0)
    shown = _shown(dataset, inputs, shares, wanted or {}, side)
    return sheet_page(shown, about=[about_dataset(dataset)])


def about_dataset(dataset: StoredDataset) -> str:
    return f"{dataset.store.uri} · {about_model(dataset.record.model)}"


def about_model(model: ResolvedModel) -> str:
    commit = f" @ {model.commit[:12]}" if model.commit else ""
    return f"{model.id}{commit} · {model.dtype}"


def sheet_page(
    shown: Iterator[Shown],
    *,
    about: Sequence[str],
    heading: str = "Annotations",
    noun: str = "annotations",
) -> Iterator[str]:
    """Yield pieces of the page. `about` are lines below the heading; `noun` is what is counted."""
    return page(
        "contact_sheet.html.jinja",
        styles=("page.css", "contact_sheet.css"),
        script="contact_sheet.js",
        chunks=_chunks(shown),
        about=about,
        heading=heading,
        noun=noun,
    )


def thumbnails(
    rows: Sequence[Mapping[str, Any]],
    shard_of: Callable[[str], Shard],
    reader: SampleReader,
    *,
    exif: Any,
    side: int,
) -> list[Thumbnail]:
    """Return the thumbnails of rows of any shards, in the order of the rows.

    `shard_of` is called with a shard id.
    """
    by_shard = defaultdict[str, list[int]](list)
    for i in sorted(range(len(rows)), key=lambda i: rows[i]["index"]):
        by_shard[rows[i]["shard_id"]].append(i)
    places = [i for of_shard in by_shard.values() for i in of_shard]
    calls = (
        partial(thumbnail, fetch, _size(rows[i], side), exif)
        for shard_id, of_shard in by_shard.items()
        for i, fetch in zip(
            of_shard,
            _fetches([rows[i] for i in of_shard], shard_of(shard_id), reader),
            strict=True,
        )
    )
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="fetch") as pool:
        found = dict(zip(places, in_order(pool, calls, ahead=_IMAGES_AHEAD), strict=True))
    return [found[i] for i in range(len(rows))]


def _size(row: Mapping[str, Any], side: int) -> tuple[int, int]:
    return thumbnail_size(row["width"], row["height"], side)


def _chunks(shown: Iterator[Shown]) -> Iterator[dict[str, list[dict[str, Any]]]]:
    """Yield chunks for the template, as JSON."""
    while some := list(islice(shown, CHUNK)):
        yield {
            "cards": [asdict(card) for card, _ in some],
            "images": [asdict(image) for _, image in some],
        }


def _annotated(dataset: StoredDataset) -> list[str]:
    """Return the shards that have rows, as far as the ledger knows."""
    ledger = Ledger(dataset.store)
    empty = {i for i, commit in ledger.summarised().items() if not commit.annotated}
    return sorted(ledger.committed() - empty)


def _shares(shard_ids: Sequence[str], count: int) -> dict[str, int]:
    """Share `count` annotations out among the shards."""
    chosen = evenly_spaced(shard_ids, min(count, max(ENOUGH_SHARDS, count // _LEAST_SHARE)))
    return {
        shard_id: (count * (place + 1)) // len(chosen) - (count * place) // len(chosen)
        for place, shard_id in enumerate(chosen)
    }


def _shown(
    dataset: StoredDataset,
    inputs: InputStore,
    shares: Mapping[str, int],
    wanted: Mapping[str, set[_RowKey]],
    side: int,
) -> Iterator[Shown]:
    calls = (
        partial(_show, row, fetch, side, dataset.record.identity.exif)
        for shard_id in sorted(shares)
        for row, fetch in _rows(
            dataset, inputs, shard_id, shares[shard_id], wanted.get(shard_id, ())
        )
    )
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="fetch") as pool:
        yield from in_order(pool, calls, ahead=_IMAGES_AHEAD)


def _show(row: Mapping[str, Any], fetch: Fetch, side: int, exif: Any) -> Shown:
    made = card(row, side=side)
    return made, thumbnail(fetch, (made.width, made.height), exif)


def _rows(
    dataset: StoredDataset,
    inputs: InputStore,
    shard_id: str,
    share: int,
    wanted: Collection[_RowKey],
) -> Iterator[tuple[dict[str, Any], Fetch]]:
    with open_commit(dataset.store, shard_id) as commit:
        table = commit.parquet.read(columns=list(CARD_COLUMNS))
        shard = commit.footer.shard()
    keys = zip(table["index"].to_pylist(), table["task"].to_pylist(), strict=True)
    also = [i for i, key in enumerate(keys) if key in wanted]
    places = sorted({*evenly_spaced(range(table.num_rows), share), *also})
    rows = table.take(pa.array(places, pa.int64())).to_pylist()
    reader = SampleReader.of_job(inputs, dataset.record.identity)
    return zip(rows, _fetches(rows, shard, reader), strict=True)


def _fetches(
    rows: Sequence[Mapping[str, Any]], shard: Shard, reader: SampleReader
) -> Iterator[Fetch]:
    """Yield one call for each row; calls fail if the input cannot be read."""
    found = 0
    try:
        for fetch in fetches(rows, shard, reader):
            yield fetch
            found += 1
    except PipelineError as error:
        yield from [partial(_fail, error)] * (len(rows) - found)


def _fail(error: PipelineError) -> bytes:
    raise error
