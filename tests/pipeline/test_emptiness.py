"""Nothing to read, say or show: every command finishes, every export loads, and counts say so."""

import functools
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import pyarrow.dataset as arrow_datasets
import pyarrow.parquet as pq
import pytest
import yaml

from jobs.cli import run_command
from kosmos2_core.annotation import Annotation, Entity
from pipeline.dataset.dataset import StoredDataset, open_dataset
from pipeline.dataset.layout import EXPORT_KEY
from pipeline.derived.filtering import filter_dataset
from pipeline.derived.options import FilterOptions
from pipeline.driver.pending import shards_to_retry
from pipeline.exit_codes import ExitCode
from pipeline.exports.exporting import README_KEY, export_dataset
from pipeline.exports.formats.registry import EXPORT_FORMATS
from pipeline.exports.options import ExportOptions, FormatName
from pipeline.exports.sections import in_turn
from pipeline.parquet import file_metadata
from pipeline.schema import ANNOTATION
from pipeline.spec.job import RetryOptions
from pipeline.storage import InputStore, StorageOptions, open_output
from pipeline.verification.findings import Defect
from tests.support.commits import write_dataset
from tests.support.export_contract import sidecar_rows
from tests.support.foreign import environment, install
from tests.support.foreign import run as run_apart
from tests.support.tars import an_annotation, pictures

# ---- datasets that lack something

BROKEN = [("0.jpg", b"broken"), ("1.jpg", b"")]
WORDLESS = an_annotation(caption="An image of", entities=())
BOXLESS = an_annotation(entities=(Entity(phrase="a cat", start=12, end=17, boxes=()),))


def said(answer: Annotation) -> Any:
    """Two pictures, of which the same is said."""
    return pictures(2), [[answer]] * 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Emptiness:
    """Archives as `write_dataset` takes them, and what is in the dataset that comes of them."""

    archives: Mapping[str, Any]
    committed: int
    annotations: int = 0
    phrases: int = 0
    boxes: int = 0
    rejected: int = 0
    is_filtered: bool = False


EMPTINESSES = {
    "nothing is committed": Emptiness(archives={"a.tar": (pictures(2), None)}, committed=0),
    "no samples": Emptiness(archives={"a.tar": ([], [])}, committed=1),
    "all rejected": Emptiness(
        archives={"a.tar": (BROKEN, []), "b.tar": (BROKEN, [])}, committed=2, rejected=4
    ),
    "all filtered away": Emptiness(
        archives={"a.tar": said(an_annotation())}, committed=1, rejected=2, is_filtered=True
    ),
    "no phrases": Emptiness(archives={"a.tar": said(WORDLESS)}, committed=1, annotations=2),
    "no boxes": Emptiness(archives={"a.tar": said(BOXLESS)}, committed=1, annotations=2, phrases=2),
    "rows in one shard of four": Emptiness(
        archives={
            "a.tar": ([], []),
            "b.tar": (BROKEN, []),
            "c.tar": said(an_annotation()),
            "d.tar": (pictures(1), None),
        },
        committed=3,
        annotations=2,
        phrases=2,
        boxes=2,
        rejected=2,
    ),
}
SELDOM = ("all rejected", "rows in one shard of four")
Made = tuple[StoredDataset, Emptiness]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    @functools.cache
    def make(name: str) -> Made:
        folder, what = tmp_path_factory.mktemp("dataset"), EMPTINESSES[name]
        job = write_dataset(folder, what.archives)
        if what.is_filtered:
            filtered = open_output(str(folder / "filtered"))
            filter_dataset(job, filtered, FilterOptions(where=("false",)))
            job = open_dataset(filtered.uri, StorageOptions())
        return job, what

    return make


def with_each(argument: str, ways: Mapping[Any, Any], *, often: Collection[Any]) -> Any:
    """Parameters: each way with each dataset.

    A default run has all datasets for those in `often`, and two for each other way.
    """
    return pytest.mark.parametrize(
        (argument, "made"),
        [
            pytest.param(
                way,
                name,
                id=f"{label}-{name}",
                marks=() if label in often or name in SELDOM else pytest.mark.slow,
            )
            for label, way in ways.items()
            for name in EMPTINESSES
        ],
        indirect=["made"],
    )


@pytest.fixture(params=EMPTINESSES)
def made(request: pytest.FixtureRequest, make: Callable[[str], Made]) -> Made:
    return make(request.param)


def folder_of(job: StoredDataset) -> Path:
    return Path(job.store.uri.removeprefix("file://"))


# ---- the dataset itself


def test_the_dataset_is_read_by_others(made: Made, tmp_path: Path) -> None:
    job, what = made
    if not what.committed:
        assert not (folder_of(job) / "annotations").exists()
        return
    files = str(folder_of(job) / "annotations" / "*.parquet")
    assert counted_by_all(files, tmp_path, is_empty=not what.annotations) == {what.annotations}


def counted_by_all(files: str, tmp_path: Path, *, is_empty: bool) -> set[int]:
    """How many rows pyarrow, DuckDB, pandas and Hugging Face find; each finds all columns."""
    import datasets
    import pandas

    paths = sorted(str(path) for path in Path(files).parent.glob(Path(files).name))
    arrow = arrow_datasets.dataset(paths).to_table()
    found = duckdb.sql(f"SELECT * FROM '{files}'")
    stream = datasets.load_dataset("parquet", data_files=files, streaming=True)["train"]
    columns = pq.read_schema(paths[0]).names
    frame = pandas.concat(pandas.read_parquet(fsspec.open(path).open()) for path in paths)
    assert arrow.column_names == found.columns == list(stream.features) == columns
    assert list(frame.columns) == columns
    counts = {arrow.num_rows, len(found.fetchall()), len(list(stream)), len(frame)}
    return counts if is_empty else counts | {loaded(files, tmp_path)}


def loaded(files: str, tmp_path: Path) -> int:
    import datasets

    cache = str(tmp_path / "cache")
    found = datasets.load_dataset("parquet", data_files=files, cache_dir=cache)
    return int(found["train"].num_rows)


@pytest.mark.slow
def test_polars_reads_the_dataset(make: Callable[[str], Made], tmp_path: Path) -> None:
    """And the pandas of a fresh environment."""
    code = """
import pandas, polars
answer = {
    name: [
        polars.read_parquet(files).height,
        polars.scan_parquet(files).explode("entities").drop_nulls("entities").collect().height,
        len(pandas.read_parquet(files.replace("/*.parquet", ""), engine="pyarrow")),
        len(polars.scan_parquet(files).collect_schema()),
    ]
    for name, files in FILES.items()
}
"""
    jobs = {name: make(name) for name, what in EMPTINESSES.items() if what.committed}
    files = {
        name: str(folder_of(job) / "annotations" / "*.parquet") for name, (job, _) in jobs.items()
    }
    with environment(tmp_path / "venv") as python:
        install(python, "polars", "pandas", "pyarrow")
        found = run_apart(python, code, tmp_path / "home", names={"FILES": files})
    for name, (_, what) in jobs.items():
        rows, phrases = what.annotations, what.phrases
        assert found[name] == [rows, phrases, rows, len(ANNOTATION.names)], name


def test_hugging_face_loads_no_split_without_rows_whoever_wrote_it(tmp_path: Path) -> None:
    """huggingface/datasets#8401. As soon as this fails, documents need not name streaming."""
    path = tmp_path / "a.parquet"
    pq.ParquetWriter(path, ANNOTATION).close()
    with pytest.raises(ValueError, match="corresponds to no data"):
        loaded(str(path), tmp_path)


@pytest.mark.parametrize("name", ["all rejected", "rows in one shard of four"])
def test_an_output_of_an_earlier_version_is_read_and_mended(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It had row groups without rows, which `datasets` cannot load."""
    what = EMPTINESSES[name]
    job = write_dataset(tmp_path, what.archives)
    paths = sorted((folder_of(job) / "annotations").iterdir())
    files = str(paths[0].parent / "*.parquet")
    metadata = [file_metadata(path.read_bytes()) for path in paths]
    for path in paths:
        pq.write_table(pq.read_table(path), path)
        assert pq.read_metadata(path).num_row_groups == 1
    with pytest.raises(Exception, match="BatchSize"):
        counted_by_all(files, tmp_path, is_empty=True)

    for command in ("status", "stats"):
        assert run(command, job.store.uri) == 0
    assert run("report", job.store.uri, "--html", tmp_path / "page.html") == 0
    assert run("filter", job.store.uri, tmp_path / "new", "--where", "true") == 0
    for each in EXPORT_FORMATS:
        exported = export_dataset(
            job, InputStore(), open_output(str(tmp_path / each)), ExportOptions(format=each)
        )
        assert exported.annotations == what.annotations
    capsys.readouterr()
    assert run("verify", job.store.uri, "--json") == ExitCode.DEFECTS
    found = json.loads(capsys.readouterr().out)["findings"]
    assert {finding["defect"] for finding in found} == {Defect.EMPTY_ROW_GROUP}
    assert len(found) == what.committed - bool(what.annotations)

    assert run("verify", job.store.uri, "--fix") == 0
    assert [file_metadata(path.read_bytes()) for path in paths] == metadata
    whole = counted_by_all(files, tmp_path, is_empty=not what.annotations)
    assert whole == {what.annotations}


# ---- each command


def run(*arguments: str) -> int:
    return run_command([str(argument) for argument in arguments])


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert run(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_status_counts(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    job, what = made
    found = as_json(capsys, "status", job.store.uri)
    totals = found["totals"]
    assert totals["shards"] == what.committed
    assert (totals["annotated"], totals["rejected"]) == (what.annotations, what.rejected)
    assert found["shards_left"] == len(what.archives) - what.committed
    assert run("status", job.store.uri) == 0


def test_stats_count(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    job, what = made
    found = as_json(capsys, "stats", job.store.uri)
    assert found["shards_committed"] == what.committed
    assert (found["annotated"], found["rejected"]) == (what.annotations, what.rejected)
    assert (found["entities"], found["boxes"]) == (what.phrases, what.boxes)
    assert found["without_box"] == (0 if what.boxes else what.annotations)
    assert ("box score" in found["quantiles"]) == bool(what.boxes)
    assert run("stats", job.store.uri) == 0


def test_verify_finds_nothing(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    job, what = made
    found = as_json(capsys, "verify", job.store.uri)
    assert (found["findings"], found["totals"]["annotated"]) == ([], what.annotations)
    assert run("verify", job.store.uri) == 0


def test_retry_finds_nothing_to_do(made: Made) -> None:
    job, _ = made
    assert shards_to_retry(job, RetryOptions()) == []
    assert shards_to_retry(job, RetryOptions(samples=True)) == []


@pytest.mark.parametrize("name", ["view", "report"])
def test_pages_are_made(name: str, made: Made, tmp_path: Path) -> None:
    job, what = made
    page = tmp_path / "page.html"
    assert run(name, job.store.uri, "--html", page) == 0
    sheet = page if name == "view" else tmp_path / "contact-sheet.html"
    assert sum(len(chunk) for chunk in chunks(sheet.read_text())) == what.annotations
    if name == "report":
        text = page.read_text()
        assert "NaN" not in text
        assert f"<dt>annotations</dt><dd>{what.annotations}</dd>" in text
        assert f"<dt>boxes</dt><dd>{what.boxes}</dd>" in text


def chunks(page: str) -> Iterator[list[Any]]:
    opening = '<script type="application/json" class="cards">'
    for piece in page.split(opening)[1:]:
        yield json.loads(piece.partition("</script>")[0])


def test_a_contact_sheet_passes_over_shards_without_rows(tmp_path: Path) -> None:
    """So many that of evenly spaced ones none has rows."""
    archives: dict[str, Any] = {f"{i:02d}.tar": ([], []) for i in range(9)}
    job = write_dataset(tmp_path, {**archives, "05.tar": said(an_annotation())})
    assert run("verify", job.store.uri, "--fix") == 0  # summarises
    assert run("view", job.store.uri, "--html", tmp_path / "page.html", "--count", "2") == 0
    assert [len(chunk) for chunk in chunks((tmp_path / "page.html").read_text())] == [2]


DERIVING = {
    "filter boxes": ("filter", "--min-score", "0.1"),
    "filter phrases": ("filter", "--where-entity", "phrase <> 'it'"),
    "filter annotations": ("filter", "--where", "box_count >= 0"),
    "dedup": ("dedup",),
    "dedup by looks": ("dedup", "--near", "2"),
}


@with_each("command", DERIVING, often=("filter boxes", "dedup by looks"))
def test_a_dataset_is_made_of_it(
    command: tuple[str, ...], made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job, what = made
    name, *options = command
    dest = tmp_path / "derived"
    for _ in range(2):  # the second time there is nothing to do
        assert run(name, job.store.uri, dest, *options) == 0
    account = json.loads((dest / "_DERIVED.json").read_text())
    assert account["shards"] == what.committed
    assert account["before"]["annotations"] == what.annotations
    assert account["after"]["annotations"] == what.annotations
    capsys.readouterr()
    assert as_json(capsys, "verify", dest)["findings"] == []


@pytest.mark.parametrize(
    ("members", "images"), [([], 0), (BROKEN, 2), ([("readme.txt", b"")], 1)], ids=str
)
def test_a_plan_of_nothing_is_one(
    members: Any, images: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dataset(tmp_path, {"a.tar": (members, None)})
    found = as_json(capsys, "plan", tmp_path / "in")
    assert (found["shards"], found["images"]["value"]) == (1, images)
    assert run("plan", tmp_path / "in") == 0


# ---- each export


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def of_hugging_face(folder: Path) -> tuple[int, int]:
    import datasets

    found = datasets.load_dataset(str(folder), streaming=True)["train"]
    assert {"caption", "entities", "width"} <= set(found.features)
    rows = list(found)
    if rows:
        cache = str(folder) + "-cache"
        assert datasets.load_dataset(str(folder), cache_dir=cache)["train"].num_rows == len(rows)
    return len(rows), sum(len(e["boxes"]) for row in rows for e in row["entities"])


def of_boxes(folder: Path) -> tuple[None, int]:
    """A row a box: of annotations without one there is nothing."""
    files = str(folder / "data" / "*.parquet")
    table = arrow_datasets.dataset(folder / "data", format="parquet").to_table()
    found = duckdb.sql(f"SELECT phrase, x1_px FROM '{files}'").fetchall()
    assert len(found) == table.num_rows
    return None, table.num_rows


def of_grit(folder: Path) -> tuple[int, int]:
    import datasets

    files = str(folder / "data" / "*.parquet")
    found = datasets.load_dataset("parquet", data_files=files, streaming=True)["train"]
    assert len(found.features) == 10
    rows = list(found)
    return len(rows), sum(len(row["noun_chunks"]) for row in rows)


def of_coco(folder: Path) -> tuple[int, int]:
    from pycocotools.coco import COCO

    truth = COCO(folder / "annotations" / "train-00000.json")
    results = folder / "results" / "train-00000.json"
    assert results.exists() == bool(truth.anns)
    if results.exists():
        assert len(truth.loadRes(str(results)).anns) == len(truth.anns)
    assert [c["name"] for c in truth.loadCats(truth.getCatIds())] == ["object"]
    return len(truth.imgs), len(truth.anns)


def of_webdataset(folder: Path) -> tuple[int, int]:
    import webdataset

    path = str(folder / "data" / "train-00000.tar")
    found = webdataset.WebDataset(path, shardshuffle=False, empty_check=False).decode("pil")
    samples = list(found)
    return len(samples), sum(len(e["boxes"]) for s in samples for e in s["json"]["entities"])


def of_label_studio(folder: Path) -> tuple[int, int]:
    tasks = [task for path in (folder / "tasks").iterdir() for task in json.loads(path.read_text())]
    assert '<Label value="object" />' in (folder / "interface.xml").read_text()
    return len(tasks), sum(len(task["predictions"][0]["result"]) // 2 for task in tasks)


def of_fiftyone(folder: Path) -> tuple[int, int]:
    found = json.loads((folder / "labels" / "train-00000.json").read_text())
    assert found["labels"].keys() == found["samples"].keys()
    return len(found["labels"]), sum(map(len, found["labels"].values()))


def of_yolo(folder: Path) -> tuple[int, int]:
    """Ultralytics wants a label file of each picture, or takes it for background."""
    data = yaml.safe_load((folder / "data.yaml").read_text())
    assert data == {"train": "images/train", "val": "images/train", "names": {0: "object"}}
    pictures, labels = (
        {path.stem: path for path in (folder / kind / "train").glob("*")}
        for kind in ("images", "labels")
    )
    assert pictures.keys() == labels.keys()
    found = supervision().DetectionDataset.from_yolo(
        *(str(folder / kind / "train") for kind in ("images", "labels")), str(folder / "data.yaml")
    )
    assert len(found) == len(labels)
    return len(labels), sum(len(path.read_text().splitlines()) for path in labels.values())


def of_odvg(folder: Path) -> tuple[int, int]:
    found = lines(folder / "data" / "train-00000.jsonl")
    return len(found), sum(len(line["grounding"]["regions"]) for line in found)


def of_voc(folder: Path) -> tuple[int, int]:
    names = (folder / "ImageSets" / "Main" / "train.txt").read_text().split()
    found = supervision().DetectionDataset.from_pascal_voc(
        str(folder / "JPEGImages"), str(folder / "Annotations")
    )
    assert len(found) == len(names)
    return len(names), sum(len(detections) for _, _, detections in found)


def supervision() -> Any:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has no OpenCV
        import supervision

    return supervision


def of_sidecar(folder: Path) -> tuple[int, int]:
    paths = (folder / "data").glob("*")
    answers = [row["brief"] for path in paths for row in sidecar_rows(path) if row["brief"]]
    return len(answers), sum(len(e["boxes"]) for answer in answers for e in answer["entities"])


READERS: Mapping[FormatName, Callable[[Path], tuple[int | None, int]]] = {
    "hf": of_hugging_face,
    "boxes": of_boxes,
    "coco": of_coco,
    "grit": of_grit,
    "webdataset": of_webdataset,
    "label-studio": of_label_studio,
    "fiftyone": of_fiftyone,
    "yolo": of_yolo,
    "odvg": of_odvg,
    "voc": of_voc,
    "sidecar": of_sidecar,
}


EXPORTING: dict[str, tuple[FormatName, int]] = {
    **{name: (name, 1) for name in EXPORT_FORMATS},
    **{f"{name} twice": (name, 2) for name, of in EXPORT_FORMATS.items() if of.can_be_parallel},
}


def test_each_format_has_a_reader() -> None:
    assert READERS.keys() == EXPORT_FORMATS.keys()


# The library leaves closing its files to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@with_each("way", EXPORTING, often=EXPORT_FORMATS)
def test_an_export_of_it_is_whole_and_loads(
    way: tuple[FormatName, int], made: Made, tmp_path: Path
) -> None:
    """Sections that would be exported at the same time: here one after the other."""
    job, what = made
    name, parallel = way
    options = ExportOptions(format=name, parallel=parallel)
    coverage = export_dataset(job, InputStore(), open_output(str(tmp_path)), options, run=in_turn)
    assert (coverage.shards_exported, coverage.rejected) == (what.committed, what.rejected)
    assert (coverage.annotations, coverage.boxes) == (what.annotations, what.boxes)
    record = json.loads((tmp_path / EXPORT_KEY).read_text())
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name[0] not in "._"]
    assert (record["is_complete"], record["details"]["files"]) == (True, len(files))
    assert record["details"]["size_bytes"] == sum(path.stat().st_size for path in files)
    assert ("**Empty:**" in (tmp_path / README_KEY).read_text()) == (not what.annotations)
    if parallel == 1:
        examples, boxes = READERS[name](tmp_path)
        assert (examples or 0, boxes) == (0 if examples is None else what.annotations, what.boxes)
