"""The README of an export: its content, its amount, and its origin."""

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from pipeline.dataset.dataset import StoredDataset
from pipeline.exports.coverage import Coverage
from pipeline.exports.formats.protocol import Format
from pipeline.exports.options import ExportOptions, Score
from pipeline.exports.papers.credits import Creator, License, as_code_block, as_markdown
from pipeline.exports.parts import yaml_text
from pipeline.review.curve import Curve

_MEANINGS: dict[Score, str] = {
    "mass": "probability mass around the corners",
    "joint": "probability mass around the corners, times that of the phrase",
    "logp": "probability of the exact corners",
    "consistency": "IoU with the box of the phrase alone",
    "calibrated": "probability that the box is right",
}
# The size classes of datasets on Hugging Face's hub.
_SIZES = (
    *((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M")),
    *((10**7, "1M<n<10M"), (10**8, "10M<n<100M"), (10**9, "100M<n<1B")),
)


def dataset_card(
    dataset: StoredDataset,
    options: ExportOptions,
    chosen: Format,
    coverage: Coverage,
    score: str,
) -> str:
    """Return the README as Markdown, with front matter for the hub; for `hf` it names the files."""
    return _template().render(
        dataset=dataset,
        options=options,
        format=chosen,
        score=score,
        coverage=coverage,
        names_files=options.format == "hf",
        license=None if options.license is None else License.of(options.license),
        creators=list(map(Creator.of, options.creator)),
        size=next((name for most, name in _SIZES if coverage.annotations < most), "n>1T"),
    )


@cache
def _template() -> Template:
    environment = Environment(  # noqa: S701 - the page is Markdown, not HTML
        loader=PackageLoader("pipeline.exports.papers", "."),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"yaml": yaml_text, "markdown": as_markdown, "code": as_code_block}
    return environment.get_template("card.md.jinja")


def score_note(score: Score, curve: Curve | None) -> str:
    """Return what a score means, and the judgements that it rests on."""
    basis = "uncalibrated" if curve is None else f"calibrated by {curve.judgements} judged boxes"
    return f"{_MEANINGS[score]}, {basis}"
