"""License, citation, creators and `croissant.json`, read back by the libraries of their readers."""

import json
from pathlib import Path
from typing import Any

import mlcroissant
import pytest
from huggingface_hub import DatasetCard
from pycocotools.coco import COCO
from pydantic import ValidationError

from pipeline.dataset.dataset import StoredDataset
from pipeline.exports.exporting import README_KEY
from pipeline.exports.formats.registry import EXPORT_FORMATS
from pipeline.exports.options import ExportOptions
from pipeline.exports.papers.credits import License
from pipeline.exports.papers.croissant import CROISSANT_KEY
from tests.support.export_dataset import exported

# Warnings of rdflib and pandas, which mlcroissant reads with.
pytestmark = pytest.mark.filterwarnings("ignore:ConjunctiveGraph", "ignore:The inplace keyword")

BIBTEX = "@misc{boxes,\n  title = {Boxes and ``` words},\n}"
CREDITS: dict[str, Any] = {
    "license": "cc-by-4.0",
    "citation": BIBTEX,
    "creator": ("Ada <b>Lovelace</b>", "org:Analytical *Engines*"),
}
# Record set -> records that mlcroissant reads. It reads no tars that lie beside croissant.json.
RECORDS: dict[str, dict[str, int]] = {
    "hf": {"rows": 5},
    "boxes": {"rows": 9},
    "coco": {"images": 5, "annotations": 9, "pixels": 5},
    "grit": {"rows": 5},
    "webdataset": {},
    "label-studio": {"tasks": 5, "pixels": 5},
    "fiftyone": {"samples": 5, "pixels": 5},
    "yolo": {"labels": 5, "pixels": 5},
    "odvg": {"lines": 5, "pixels": 5},
    "voc": {"annotations": 5, "pixels": 5},
    "sidecar": {"rows": 6},
}


def croissant(folder: Path) -> mlcroissant.Dataset:
    """Raises for what is no valid Croissant."""
    return mlcroissant.Dataset(jsonld=str(folder / CROISSANT_KEY))


def test_every_format_is_described() -> None:
    assert RECORDS.keys() == EXPORT_FORMATS.keys()


@pytest.mark.parametrize("name", RECORDS)
def test_mlcroissant_reads_the_records_of_an_export(
    name: str, job: StoredDataset, tmp_path: Path
) -> None:
    images = {"images": "embed"} if EXPORT_FORMATS[name].can_embed else {}
    options = {"sidecar": "parquet"} if name == "sidecar" else {}
    exported(job, tmp_path, name, **CREDITS, **images, **options)
    found = croissant(tmp_path)
    assert found.metadata.ctx.is_v1_1()
    assert found.metadata.record_sets
    read = {name: list(found.records(name)) for name in RECORDS[name]}
    assert {name: len(rows) for name, rows in read.items()} == RECORDS[name]


def test_records_hold_what_the_files_hold(job: StoredDataset, tmp_path: Path) -> None:
    exported(job, tmp_path, "hf", images="embed")
    first = next(iter(croissant(tmp_path).records("rows")))
    assert first["rows/caption"].decode() == "a cat 🐈 and two dogs."
    assert [each["rows/entities/phrase"].decode() for each in first["rows/entities"]] == [
        *("a cat 🐈", "two dogs")
    ]
    assert first["rows/image"].size == (60, 40)


def test_sidecars_are_described_by_the_kinds_that_are_there(
    job: StoredDataset, tmp_path: Path
) -> None:
    exported(job, tmp_path, "sidecar")
    (records,) = croissant(tmp_path).metadata.record_sets
    assert records.id == "samples"
    files = [file_set.includes for file_set in croissant(tmp_path).metadata.file_sets]
    assert files == [["data/*.ground.tar"], ["*.ground.json"]]


def test_a_description_names_license_citation_and_creators(
    job: StoredDataset, tmp_path: Path
) -> None:
    exported(job, tmp_path, "hf", **CREDITS)
    metadata = croissant(tmp_path).metadata
    assert metadata.license == ["https://spdx.org/licenses/CC-BY-4.0.html"]
    assert metadata.cite_as == BIBTEX
    assert [type(each).__name__ for each in metadata.creators] == ["Person", "Organization"]
    assert [each.name for each in metadata.creators] == [
        *("Ada <b>Lovelace</b>", "Analytical *Engines*")
    ]


def test_a_description_tells_how_the_dataset_was_made(job: StoredDataset, tmp_path: Path) -> None:
    exported(job, tmp_path, "coco")
    metadata = croissant(tmp_path).metadata
    assert "no annotation: 1. Planned shards in the export: 2 of 3." in (
        metadata.data_collection_missing_data
    )
    assert metadata.data_annotation_protocol[0].endswith(
        "Prompts: brief: '<grounding> An image of'"
    )
    assert job.record.model.weights_digest in metadata.machine_annotation_tools[0]
    assert metadata.annotations_per_item == "one per task: brief"
    assert any("truncated: 1" in each for each in metadata.data_annotation_analysis)
    assert metadata.data_limitations
    assert metadata.personal_sensitive_information


def test_without_credits_none_are_claimed(job: StoredDataset, tmp_path: Path) -> None:
    exported(job, tmp_path, "coco")
    page = json.loads((tmp_path / CROISSANT_KEY).read_text())
    assert not {"license", "citeAs", "creator"} & page.keys()
    card = DatasetCard((tmp_path / README_KEY).read_text())
    assert card.data.license is None
    assert "## License" not in card.text
    assert json.loads((tmp_path / "annotations/train-00000.json").read_text())["licenses"] == []


def test_coco_names_the_license_and_the_contributors(job: StoredDataset, tmp_path: Path) -> None:
    exported(job, tmp_path, "coco", **CREDITS)
    found = COCO(str(tmp_path / "annotations" / "train-00000.json")).dataset
    assert found["licenses"] == [
        {"id": 1, "name": "CC-BY-4.0", "url": "https://spdx.org/licenses/CC-BY-4.0.html"}
    ]
    assert found["info"]["contributor"] == "Ada <b>Lovelace</b>, Analytical *Engines*"


@pytest.mark.parametrize("name", ["hf", "coco", "webdataset"])
def test_a_card_has_the_front_matter_of_the_hub(
    name: str, job: StoredDataset, tmp_path: Path
) -> None:
    exported(job, tmp_path, name, **CREDITS)
    card = DatasetCard((tmp_path / README_KEY).read_text())
    assert (card.data.license, card.data.language) == ("cc-by-4.0", ["en"])
    assert ("configs" in card.data.to_dict()) == (name == "hf")


def test_a_card_shows_credits_as_they_are_given(job: StoredDataset, tmp_path: Path) -> None:
    exported(job, tmp_path, "hf", **CREDITS)
    text = DatasetCard((tmp_path / README_KEY).read_text()).text
    assert f"## Citation\n\n````\n{BIBTEX}\n````\n" in text
    assert r"- Ada \<b\>Lovelace\<\/b\>" in text
    assert r"Analytical \*Engines\*" in text


@pytest.mark.parametrize(
    ("text", "name", "hub"),
    [
        ("cc-by-4.0", "CC-BY-4.0", "cc-by-4.0"),
        ("MIT", "MIT", "mit"),
        ("odc-by-1.0", "ODC-By-1.0", "odc-by"),
        ("gpl-3.0-or-later", "GPL-3.0-or-later", "gpl-3.0"),
        ("0BSD", "0BSD", "other"),  # SPDX knows it, the hub does not
        ("mit or apache-2.0", "MIT OR Apache-2.0", "other"),
        ("LicenseRef-Own", "LicenseRef-Own", "other"),
        ("for research only: ask", "for research only: ask", "other"),
        ("https://example.org/license", "https://example.org/license", "other"),
    ],
)
def test_a_license_is_spelled_as_each_reader_spells_it(
    text: str, name: str, hub: str, job: StoredDataset, tmp_path: Path
) -> None:
    found = License.of(text)
    assert (found.name, found.hub) == (name, hub)
    exported(job, tmp_path, "boxes", license=text)
    data = DatasetCard((tmp_path / README_KEY).read_text()).data.to_dict()
    assert data["license"] == hub
    assert data.get("license_name") == (name if hub == "other" else None)
    assert data.get("license_link") == (found.url if hub == "other" else None)
    croissant(tmp_path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"license": " "}, "empty"),
        ({"license": "MIT\nlicense: other"}, r"U\+000A"),
        ({"citation": ""}, "empty"),
        ({"citation": "a\x00b"}, r"U\+0000"),
        ({"citation": "a" * 10_001}, "at most 10000"),
        ({"creator": ("Ada", "org: ")}, "empty"),
        ({"creator": ("Ada\x1b[31m",)}, r"U\+001B"),
        ({"creator": ("a\u202eb",)}, r"U\+202E"),
        ({"creator": ("\ud800",)}, r"U\+D800"),
    ],
)
def test_credits_that_cannot_be_shown_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ExportOptions(format="hf", **options)
