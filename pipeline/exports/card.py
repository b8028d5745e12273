"""The README of an export: its content, its amount, and its origin."""

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.dataset.dataset import StoredDataset
from pipeline.exports.coverage import Coverage
from pipeline.exports.formats.protocol import Format
from pipeline.exports.options import ExportOptions, Score

_MEANINGS: dict[Score, str] = {
    "mass": "probability mass around the corners",
    "joint": "probability mass around the corners, times that of the phrase",
    "logp": "probability of the exact corners",
    "consistency": "IoU with the box of the phrase alone",
}
# The size classes of datasets on Hugging Face's hub.
_SIZES = (
    *((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M")),
    *((10**7, "1M<n<10M"), (10**8, "10M<n<100M"), (10**9, "100M<n<1B")),
)


def dataset_card(
    dataset: StoredDataset, options: ExportOptions, chosen: Format, coverage: Coverage
) -> str:
    """Return the README as Markdown; for `hf` with front matter that names the splits' files."""
    environment = Environment(  # noqa: S701 - the page is Markdown, not HTML
        loader=PackageLoader("pipeline.exports", "."),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("card.md.jinja").render(
        dataset=dataset,
        options=options,
        format=chosen,
        score_meaning=_MEANINGS[options.score],
        coverage=coverage,
        is_hub_dataset=options.format == "hf",
        size=next((name for most, name in _SIZES if coverage.annotations < most), "n>1T"),
    )
