"""Images with the bytes of others: their answers are computed once."""

import io
import json
import tarfile
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from kosmos2_core.shapes.world.shards import write_shards
from pipeline.datasets import Dataset
from pipeline.execution.annotate.images import ImageAnnotator
from pipeline.formats.sample import Sample
from pipeline.reading import copies, read_table
from pipeline.reading.decoding import ThreadDecoder
from pipeline.verification.findings import Defect
from tests.support.locally import LocalCommand

IMAGES = 8  # of each of the two shards with images that are new
TASKS = ("--task", "brief", "--task", "detailed")


class Counts:
    """How many images were decoded and annotated."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.decoded = self.annotated = 0
        decode, answers = ThreadDecoder.decode, ImageAnnotator.answers

        def counted_decode(decoder: ThreadDecoder, sample: object) -> object:
            self.decoded += 1
            return decode(decoder, sample)  # type: ignore[arg-type]

        def counted_answers(model: ImageAnnotator, pixels: np.ndarray, fields: object) -> object:
            self.annotated += len(pixels)
            return answers(model, pixels, fields)  # type: ignore[arg-type]

        monkeypatch.setattr(ThreadDecoder, "decode", counted_decode)
        monkeypatch.setattr(ImageAnnotator, "answers", counted_answers)


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counts:
    return Counts(monkeypatch)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards of new images, then one of copies: 6 of the first, 3 of the second, 2 of those."""
    folder = tmp_path_factory.mktemp("copied")
    write_shards(folder, shards=2, images=IMAGES, seed=7)
    first, second = (_images(path) for path in sorted(folder.glob("*.tar")))
    copies = [*first[:6], *second[-3:], *first[:2]]
    with tarfile.open(folder / "with-copies.tar", "w") as tar:
        for number, image in enumerate(copies):
            _add(tar, f"copy{number}.jpg", image)
            # wrong metadata are an issue of the sample, and not of its image
            _add(tar, f"copy{number}.json", b"[" if number == 4 else _metadata(number))
    return folder


def _images(path: Path) -> list[bytes]:
    with tarfile.open(path) as tar:
        files = ((member.name, tar.extractfile(member)) for member in tar)
        return [file.read() for name, file in files if file and name.endswith(".jpg")]


def _metadata(number: int) -> bytes:
    return json.dumps({"n": number}).encode()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


@pytest.fixture(scope="module")
def plain(kosmos2: LocalCommand, shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    output = tmp_path_factory.mktemp("plain") / "out"
    return _annotated(kosmos2, shards, output)


def _annotated(kosmos2: LocalCommand, shards: Path, output: Path, *options: str) -> Dataset:
    done = kosmos2.run("annotate", str(shards), str(output), *TASKS, "--carry", "n:int64", *options)
    assert done.returncode == 0, done.stderr
    return Dataset.open(str(output))


def _originals(dataset: Dataset) -> list[tuple[int, str, str, int]]:
    rows = dataset.copies().to_pylist()
    stems = [row["original_shard_id"].rpartition("-")[0] for row in rows]
    return [
        (row["index"], row["original_output"], stem, row["original_index"])
        for row, stem in zip(rows, stems, strict=True)
    ]


FIRST, SECOND = "shapes-00000", "shapes-00001"
COPIES = [
    *((i, "", FIRST, i) for i in range(6)),
    *((6 + i, "", SECOND, IMAGES - 3 + i) for i in range(3)),
    *((9 + i, "", FIRST, i) for i in range(2)),
]


def test_copies_within_a_run_are_annotated_once(
    kosmos2: LocalCommand, shards: Path, plain: Dataset, counts: Counts, tmp_path: Path
) -> None:
    dataset = _annotated(kosmos2, shards, tmp_path / "out", "--skip-copies")
    assert counts.annotated == 2 * IMAGES
    assert dataset.rows().to_table() == plain.rows().to_table()
    assert _originals(dataset) == COPIES
    assert plain.copies().num_rows == 0
    assert dataset.verify().findings == ()


def test_copies_of_what_is_committed_are_not_even_decoded(
    kosmos2: LocalCommand, shards: Path, plain: Dataset, counts: Counts, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    _annotated(kosmos2, shards, output, "--limit", "2")
    before = (counts.decoded, counts.annotated)
    dataset = _annotated(kosmos2, shards, output, "--skip-copies")
    assert (counts.decoded, counts.annotated) == before
    assert dataset.rows().to_table() == plain.rows().to_table()
    assert _originals(dataset) == COPIES
    assert dataset.verify().findings == ()


def test_answers_are_taken_from_another_dataset(
    kosmos2: LocalCommand, shards: Path, plain: Dataset, counts: Counts, tmp_path: Path
) -> None:
    dataset = _annotated(kosmos2, shards, tmp_path / "out", "--reuse", plain.uri)
    assert (counts.decoded, counts.annotated) == (0, 0)
    assert dataset.rows().to_table() == plain.rows().to_table()
    assert {row["original_output"] for row in dataset.copies().to_pylist()} == {plain.uri}
    assert dataset.copies().num_rows == 2 * IMAGES + len(COPIES)
    assert dataset.verify().findings == ()


def test_answers_of_the_dataset_itself_come_before_those_of_another(
    kosmos2: LocalCommand, shards: Path, plain: Dataset, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    _annotated(kosmos2, shards, output, "--limit", "2")
    dataset = _annotated(kosmos2, shards, output, "--skip-copies", "--reuse", plain.uri)
    assert _originals(dataset) == COPIES  # "" is the dataset itself


@pytest.mark.parametrize("options", [(), ("--skip-copies",)])
def test_the_bytes_of_an_image_are_hashed_once(
    kosmos2: LocalCommand,
    shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: Sequence[str],
) -> None:
    hashed = list[bytes]()

    def counted(sample: Sample) -> bytes:
        hashed.append(sample.data)
        return sha256(sample.data).digest()

    for module in (copies, read_table):
        monkeypatch.setattr(module, "sha256_of", counted)
    output = tmp_path / "out"
    _annotated(kosmos2, shards, output, "--limit", "2", *options)
    assert len(hashed) == len(set(hashed)) == 2 * IMAGES
    _annotated(kosmos2, shards, output, *options)
    assert len(hashed) == 2 * IMAGES + len(COPIES)


def test_images_of_a_damaged_commit_are_annotated_again(
    kosmos2: LocalCommand, shards: Path, plain: Dataset, counts: Counts, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    _annotated(kosmos2, shards, output, "--limit", "2")
    [path] = (output / "annotations").glob(f"{FIRST}-*")
    data = path.read_bytes()
    path.write_bytes(data[:-100])
    counts.annotated = 0
    _annotated(kosmos2, shards, output, "--skip-copies")
    assert counts.annotated == 6
    path.write_bytes(data)
    assert Dataset.open(str(output)).rows().to_table() == plain.rows().to_table()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--skip-copies", "--task", "ground:phrase=n"), "depend on a field of the sample"),
        (("--reuse", "{plain}", "--exif", "ignore"), "exif: requested"),
        (("--reuse", "{plain}", "--task", "brief"), "tasks: requested"),
        (("--reuse", "{nothing}"), "holds no dataset"),
        (("--reuse", "http://host/x"), "http"),
    ],
)
def test_answers_to_other_questions_are_refused(
    kosmos2: LocalCommand,
    shards: Path,
    plain: Dataset,
    tmp_path: Path,
    options: Sequence[str],
    said: str,
) -> None:
    given = [each.format(plain=plain.uri, nothing=tmp_path / "none") for each in options]
    tasks = () if "--task" in options else TASKS
    done = kosmos2.run("annotate", str(shards), str(tmp_path / "out"), *tasks, *given)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert not list(tmp_path.glob("out/annotations/*"))


def test_verify_finds_answers_of_another_image(
    kosmos2: LocalCommand, shards: Path, tmp_path: Path
) -> None:
    dataset = _annotated(kosmos2, shards, tmp_path / "out", "--skip-copies")
    [path] = (tmp_path / "out" / "annotations").glob("with-copies-*")
    data = path.read_bytes()
    [pairs] = [text for text in (b"[[0, 0], [1, 1],", b"[[0,0],[1,1],") if text in data]
    path.write_bytes(data.replace(pairs, pairs.replace(b"1, 1", b"1, 2").replace(b"1,1", b"1,2")))
    [finding] = dataset.verify().findings
    assert (finding.defect, finding.rows) == (Defect.WRONG_COPY, 1)
    assert "index 1 is not a copy of" in finding.message
