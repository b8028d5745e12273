"""No traceback reaches a user: each command is led to missing, foreign and broken places."""

import io
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from _pytest.mark import ParameterSet
from cyclopts import App

from jobs.cli import app, run_command
from pipeline.dataset.commit import ShardFailed
from pipeline.dataset.ledger import Ledger
from pipeline.exit_codes import ExitCode
from pipeline.storage import s3
from tests.support.commits import write_dataset
from tests.support.s3 import free_ports
from tests.support.tars import an_annotation, picture, pictures

# Command -> what belongs in the place {bad} -> arguments.
PLACES: dict[str, dict[str, str]] = {
    "annotate": {"input": "{bad} {new}", "output": "{images} {bad}", "config": "--config {bad}"},
    "plan": {"input": "{bad}", "config": "{images} --config {bad}"},
    "submit": {"target": "{images} {bad} --address {nobody}", "config": "--config {bad}"},
    "retry": {"record": "{bad}"},
    "status": {"run": "{bad}"},
    "stop": {"run": "{bad}"},
    "verify": {"dataset": "{bad}"},
    "stats": {"dataset": "{bad}"},
    "view": {"dataset": "{bad} --html {page}", "page": "{dataset} --html {bad}"},
    "report": {"dataset": "{bad} --html {page} --count 0", "page": "{dataset} --html {bad}"},
    "filter": {
        "dataset": "{bad} {new} --min-score 0.5",
        "destination": "{dataset} {bad} --min-score 0.5",
    },
    "dedup": {"dataset": "{bad} {new}", "destination": "{dataset} {bad}"},
    "export": {
        "dataset": "{bad} {new} --format coco",
        "destination": "{dataset} {bad} --format coco",
    },
    "publish": {"export": "{bad} me/captions --private --dry-run"},
    "sample": {"dataset": "{bad} {new}", "destination": "{dataset} {bad}"},
    "review import": {"record": "{bad} {truth}", "answers": "{dataset} {bad}"},
    "review report": {"record": "{bad}"},
    "diff": {"dataset": "{bad} {dataset}", "page": "{dataset} {dataset} --html {bad}"},
    "demo": {"folder": "{bad}"},
    "check": {"checkpoint": "--model {bad}", "page": "--output {bad}"},
    "model fetch": {"checkpoint": "{bad} {new}", "destination": "shapes {bad}"},
    "evaluate shapes": {"checkpoint": "--model {bad}"},
    "evaluate flickr30k": {
        "truth": "{bad} {images} --model shapes",
        "images": "{truth} {bad} --model shapes",
    },
    "evaluate refcoco": {
        "truth": "{bad} {images} --model shapes",
        "images": "{truth} {bad} --model shapes",
    },
    "bench scale": {"target": "--shards 100 --at {bad}"},
    "bench reader": {"target": "--images 1 --rounds 1 --width 8 --height 8 --at {bad}"},
    "doctor": {},  # a wrong place is a line of its table: tests/jobs/commands/test_doctor.py
    # They take no place.
    "bench images": {},
    "bench decode": {},
    "bench engine": {},
    "bench host": {},
    "bench pipeline": {},
    "bench driver": {},
    "bench actors": {},
    "bench soak": {},
}


def test_no_command_is_forgotten() -> None:
    def commands(of: App, way: tuple[str, ...] = ()) -> Iterator[str]:
        names = [name for name in of if not name.startswith("-")]
        for name in names:
            yield from commands(of[name], (*way, name))
        if not names:
            yield " ".join(way)

    assert set(commands(app)) == PLACES.keys()


# ---- places that are not what they should be; each is made in an empty folder

Maker = Callable[[Path], str]


def _named(text: str) -> Maker:
    return lambda folder: text


def _file(name: str, data: bytes) -> Maker:
    def make(folder: Path) -> str:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
        return str(folder / Path(name).parts[0])

    return make


def _folder(folder: Path) -> str:
    (folder / "nothing").mkdir()
    return str(folder / "nothing")


def _loop(folder: Path) -> str:
    (folder / "loop").symlink_to(folder / "loop")
    return str(folder / "loop")


def _dangling(folder: Path) -> str:
    (folder / "link").symlink_to(folder / "away" / "from" / "here")
    return str(folder / "link")


def _closed(folder: Path) -> str:
    (folder / "closed").mkdir(mode=0)
    return str(folder / "closed" / "file")


_DEEP = b"[" * 1_000  # the limit of recursion
URLS: dict[str, Maker] = {
    "bucket without a name": _named("s3://"),
    "key without a bucket": _named("s3:///key"),
    "bucket of nobody": _named("s3://nobody-owns-this/key"),
    "unknown scheme": _named("foo://bar/baz"),
    "store that is not supported": _named("dropbox://bucket/key"),
}
NAMES: dict[str, Maker] = {
    "too long": _named("a" * 300),
    "far too long": _named("/a" * 3000),
    "NUL": _named("a\0b"),
    "not UTF-8": _named("/tmp/\udcff"),
    "loop": lambda folder: f"{_loop(folder)}/a",
    "under a file": lambda folder: f"{_file('file', b'')(folder)}/a",
}
if os.geteuid() != 0:  # whom nothing is closed to
    NAMES["closed"] = _closed
NOWHERE: dict[str, Maker] = {
    "missing": lambda folder: str(folder / "not" / "there"),
    "missing for a user": _named("~nobody-of-that-name/a"),
    "dangling": _dangling,
}
FOLDERS: dict[str, Maker] = {
    "empty folder": _folder,
    "project": _file("project/README.md", b"# Somebody else's"),
}
A_FILE: dict[str, Maker] = {"file of text": _file("file.txt", b"some text\n")}
FILES: dict[str, Maker] = {
    **A_FILE,
    "file of no bytes": _file("file", b""),
    "file of JSON": _file("file.json", b'{"a": [1, 2]}'),
    "file of cut JSON": _file("file.json", b'{"a": [1, 2'),
    "file of deep JSON": _file("file.json", _DEEP),
    "file of a list": _file("file.json", b"[1, null]"),
    "file of bytes": _file("file", bytes(range(256)) * 8),
    "file of a NUL": _file("file.yaml", b'input: "a\\0b"\noutput: "c\\0d"\n'),
}
_WRONG_JSON = {
    "of no bytes": b"",
    "of another tool": b'{"jobs": [{"name": "a"}], "version": 3}',
    "of a list": b"[]",
    "of null": b"null",
    "that is cut": b'{"spec": {"input": "a',
    "of bytes": b"\xff\xfe\0\1",
    "that is deep": _DEEP,
}
RECORDS: dict[str, Maker] = {
    f"job.json {name}": _file("other/job.json", data) for name, data in _WRONG_JSON.items()
}
EXPORTS: dict[str, Maker] = {
    f"_EXPORT.json {name}": _file("other/_EXPORT.json", data) for name, data in _WRONG_JSON.items()
}


def _parquet(values: list[int]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"a": pa.array(values, pa.int64())}), buffer)
    return buffer.getvalue()


_DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda data: data[: len(data) // 2],
    "of no bytes": lambda data: b"",
    "of text": lambda data: b"some text\n",
    "of JSON": lambda data: b'{"a": 1}',
    "of other columns": lambda data: _parquet([1, 2]),
    "of no rows": lambda data: _parquet([]),
}


def _damaged(part: str, damage: Callable[[bytes], bytes]) -> Maker:
    """Our own dataset, of which all files of a part are damaged."""

    def make(folder: Path) -> str:
        output = _a_dataset(folder / "damaged")
        if part == "leases":
            _file("leases/0-of-1.json", b"{}")(output)
        files = [output / part] if (output / part).is_file() else sorted((output / part).iterdir())
        assert files, f"there is no {part} to damage"
        if part == "annotations":
            shutil.rmtree(output / "ledger")  # it would tell what they hold
        for path in files:
            path.write_bytes(damage(path.read_bytes()))
        return str(output)

    return make


def _of_other_kind(part: str) -> Maker:
    """Our own dataset, with a file in place of a folder, or a folder in place of a file."""

    def make(folder: Path) -> str:
        path = Path(_a_dataset(folder / "damaged"), part)
        if path.is_file():
            path.unlink()
            path.mkdir()
        else:
            shutil.rmtree(path, ignore_errors=True)
            path.write_text("a file")
        return str(path.parent)

    return make


def _damages(part: str, damages: Iterable[str] = _DAMAGES) -> dict[str, Maker]:
    found = {f"{part} {name}": _damaged(part, _DAMAGES[name]) for name in damages}
    return {**found, f"{part} of the other kind": _of_other_kind(part)}


PLANS = [_damages(part) for part in ("job.json", "plan")]
ANNOTATIONS = _damages("annotations")
OTHERS = [_damages(part, ("cut", "of text")) for part in ("rejected", "ledger", "failed")]
LEASES = _damages("leases", ("cut", "of text", "of JSON"))
NEEDED = {name for group in (*PLANS, ANNOTATIONS) for name in group}
DAMAGED = NEEDED.union(LEASES, *OTHERS)

# What is tried where, in groups; what a command can work with there is left out.
TRIED: dict[str, list[dict[str, Maker]]] = {
    "input": [URLS, NAMES, NOWHERE, {"empty folder": _folder}],
    "output": [URLS, NAMES, A_FILE, RECORDS, *PLANS, ANNOTATIONS],
    "record": [URLS, NAMES, NOWHERE, FOLDERS, A_FILE, RECORDS, *PLANS],
    "dataset": [URLS, NAMES, NOWHERE, FOLDERS, A_FILE, RECORDS, *PLANS, ANNOTATIONS, *OTHERS],
    "run": [URLS, NAMES, NOWHERE, FOLDERS, A_FILE, RECORDS, *PLANS, ANNOTATIONS, *OTHERS, LEASES],
    "export": [URLS, NAMES, NOWHERE, FOLDERS, A_FILE, EXPORTS],
    "destination": [URLS, NAMES, A_FILE, RECORDS, {"project": FOLDERS["project"]}],
    "target": [
        {name: {**URLS, **NAMES}[name] for name in ("bucket without a name", "NUL", "not UTF-8")}
    ],
    "config": [URLS, NAMES, NOWHERE, FOLDERS, FILES],
    "page": [URLS, NAMES, FOLDERS, {"missing": NOWHERE["missing"]}],
    "folder": [URLS, NAMES, A_FILE],
    "checkpoint": [URLS, NAMES, NOWHERE, FOLDERS, A_FILE],
    "truth": [URLS, NAMES, NOWHERE, FOLDERS, FILES],
    "answers": [URLS, NAMES, NOWHERE, FOLDERS, FILES],
    "images": [URLS, NAMES, NOWHERE, FOLDERS, A_FILE],
}
OPENED_ALIKE = ("record", "run", "dataset")


# ---- the test


@pytest.fixture(scope="module", autouse=True)
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A dataset with a commit, rejects, a summary and a failed shard, to be copied."""
    folder = tmp_path_factory.mktemp("dataset")
    samples = [("bad.jpg", b"none"), *pictures(2)]
    answers = [[], [an_annotation()], [an_annotation()]]
    job = write_dataset(folder, {"a.tar": (samples, answers), "b.tar": (pictures(1), None)})
    ledger = Ledger(job.store)
    ledger.summarise(list(ledger.summaries().values()))
    [left] = [shard for shard in job.plan.shards if shard.uri.endswith("b.tar")]
    ledger.record_failure(
        ShardFailed(
            shard_id=left.shard_id, error_type="worker_died", message="it died", retriable=True
        )
    )
    _DATASETS.append(folder / "out")
    yield folder / "out"
    _DATASETS.clear()
    s3._file_system.cache_clear()  # a client keeps what it was made with: here no credentials


_DATASETS: list[Path] = []


def _a_dataset(folder: Path) -> Path:
    shutil.copytree(_DATASETS[0], folder)
    return folder


@pytest.fixture(autouse=True)
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """No wrong place may cost the start of Ray, and no store of this machine's user is asked."""
    monkeypatch.setattr(
        "pipeline.execution.cluster._connect", lambda *_: pytest.fail("Ray is started")
    )
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nowhere")


_REMEDIES = re.compile(
    r"check|name |use |run `kosmos2 |see |choose|correct|needs a bucket|write to|make |take "
    r"|must be|is needed"
    r"|--print-config|another"
)


def _cases() -> Iterator[ParameterSet]:
    """Each command at each place.

    Most commands open a place of a kind by the same code. So a default run leads the first of them
    to every place of a group and each further one to one place, in turn; annotations alone, which
    each command reads for itself, are damaged in every way for all.
    """
    former: Counter[tuple[str, int]] = Counter()
    for command, places in PLACES.items():
        for kind in places:
            for group in TRIED[kind]:
                opened = (OPENED_ALIKE[0] if kind in OPENED_ALIKE else kind, id(group))
                number, former[opened] = former[opened], former[opened] + 1
                for position, (name, make) in enumerate(group.items()):
                    is_default = (
                        number == 0 or group is ANNOTATIONS or position == number % len(group)
                    )
                    yield pytest.param(
                        command,
                        kind,
                        name,
                        make,
                        id=f"{command}-{kind}-{name}",
                        marks=() if is_default else pytest.mark.slow,
                    )


@pytest.mark.parametrize(("command", "kind", "name", "make"), list(_cases()))
def test_a_wrong_place_is_one_sentence(
    command: str,
    kind: str,
    name: str,
    make: Maker,
    dataset: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for folder in ("bad", "images", "work"):
        (tmp_path / folder).mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(picture())
    (tmp_path / "truth.json").write_text(json.dumps(_TRUTH))
    monkeypatch.chdir(tmp_path / "work")
    bad = make(tmp_path / "bad")
    arguments = PLACES[command][kind]
    if "{dataset}" in arguments:
        _a_dataset(tmp_path / "dataset")
    words = {word: str(tmp_path / word) for word in ("new", "images", "dataset")}
    words |= {"bad": bad, "page": str(tmp_path / "page.html"), "truth": f"{tmp_path}/truth.json"}
    if name in NEEDED:
        words["images"] = str(dataset.parent / "in")
    words["nobody"] = f"http://127.0.0.1:{_NO_PORT}"
    before = _files(tmp_path)

    code = run_command([*command.split(), *(word.format(**words) for word in arguments.split())])

    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "this is a bug" not in said
    if name in DAMAGED and code in (ExitCode.DONE, ExitCode.DEFECTS):
        return  # it does not need that part, or `verify` says what is wrong with it
    assert code in (ExitCode.USAGE, ExitCode.ERROR)
    assert said.count("kosmos2: ") + said.count("\u256d") == 1
    sentence = re.sub(r"[\s\u2500-\u257f]", "", said)
    assert _sign(bad, name) in sentence
    assert _REMEDIES.search(said)
    allowed = (str(tmp_path / "new"), *([bad] if name in DAMAGED else []))
    assert [path for path in _files(tmp_path) ^ before if not path[0].startswith(allowed)] == []


_TRUTH = {
    "images": [{"id": 1, "file_name": "a.jpg", "caption": "a cat", "height": 30, "width": 40}],
    "annotations": [{"image_id": 1, "bbox": [0, 0, 9, 9], "tokens_positive": [[0, 5]]}],
}
[_NO_PORT] = free_ports(1)


def _files(folder: Path) -> set[tuple[str, int | None]]:
    """Each with the time of its last change; of a folder, that it is there."""
    return {
        (str(path), None if path.is_dir() else path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
    }


def _sign(bad: str, name: str) -> str:
    """What a message that names the place holds, however it is broken into lines."""
    if name in DAMAGED:
        return name.split()[0]
    if not bad.isprintable():
        return ascii(bad)[1:-1]
    return bad.partition("//")[0][:60]
