"""`kosmos2 publish` on a hub on loopback: what arrives, what is refused, what is sent again."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.utils import close_session

from jobs.cli import run_command
from pipeline.dataset.layout import EXPORT_KEY
from tests.support.commits import write_dataset
from tests.support.export_contract import files_in
from tests.support.tars import an_annotation, pictures
from tests.support.writable_hub import TOKEN, WritableHub, writable_hub

IMAGES = 30
Said = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset in `out`, exported as COCO, and with its images as YOLO."""
    folder = tmp_path_factory.mktemp("publish")
    write_dataset(folder, {"a.tar": (pictures(IMAGES), [[an_annotation()]] * IMAGES)})
    for name in ("coco", "yolo"):
        arguments = ["export", str(folder / "out"), str(folder / name), "--format", name]
        assert run_command([*arguments, "--license", "cc-by-4.0"]) == 0
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[WritableHub]:
    with writable_hub() as running:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", running.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield running
        close_session()  # its connections end with the server


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses between the attempts of huggingface_hub."""
    hasty = SimpleNamespace(sleep=lambda _: None, monotonic=time.monotonic, time=time.time)
    monkeypatch.setattr("huggingface_hub.utils._http.time", hasty)


@pytest.fixture
def few_per_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub._upload_pipeline.INITIAL_COMMIT_SIZE_INDEX", 0)


def publish(made: Path, name: str, *options: str) -> int:
    return run_command(["publish", str(made / name), "me/captions", *options])


def said(capsys: Said) -> str:
    return " ".join(capsys.readouterr().err.split())


def sent(made: Path, name: str) -> dict[str, bytes]:
    return {path: data for path, data in files_in(made / name).items() if path != ".lock"}


def test_an_export_arrives_in_one_commit_and_is_noted(
    made: Path, hub: WritableHub, capsys: Said
) -> None:
    assert publish(made, "coco", "--private") == 0
    repository = hub.repositories["me/captions"]
    assert repository.is_private
    assert repository.branches["main"] == sent(made, "coco")
    assert len(repository.commits) == 1
    assert b"license: cc-by-4.0" in repository.branches["main"]["README.md"]
    printed = said(capsys)
    assert "without images -> private dataset me/captions, branch main" in printed
    note = json.loads((made / "out" / "publications" / f"{repository.head}.json").read_text())
    assert (note["repository"], note["commit"]) == ("me/captions", repository.head)
    assert note["visibility"] == "private"
    assert note["files"] == len(sent(made, "coco"))
    assert note["url"] in printed


def test_the_same_export_again_makes_no_commit(made: Path, hub: WritableHub) -> None:
    assert publish(made, "coco", "--public") == 0
    assert publish(made, "coco", "--public") == 0
    assert len(hub.repositories["me/captions"].commits) == 1


def test_files_that_an_export_no_longer_has_are_deleted(made: Path, hub: WritableHub) -> None:
    assert publish(made, "coco", "--public") == 0
    files = hub.repositories["me/captions"].branches["main"]
    files |= {"annotations/train-00009.json": b"{}", "LICENSE": b"mine", ".gitattributes": b""}
    assert publish(made, "coco", "--public") == 0
    assert files == {**sent(made, "coco"), "LICENSE": b"mine", ".gitattributes": b""}


def test_a_branch_is_created(made: Path, hub: WritableHub) -> None:
    assert publish(made, "coco", "--public", "--revision", "v1") == 0
    branches = hub.repositories["me/captions"].branches
    assert branches == {"main": {}, "v1": sent(made, "coco")}


@pytest.mark.usefixtures("few_per_commit")
def test_an_interrupted_upload_is_resumed(made: Path, hub: WritableHub, capsys: Said) -> None:
    def second_commit(method: str, path: str) -> int | None:
        repository = hub.repositories.get("me/captions")
        is_second = "/commit/" in path and repository is not None and repository.commits
        return 403 if is_second else None

    hub.refuse = second_commit
    assert publish(made, "yolo", "--public") == 2
    [before] = hub.repositories["me/captions"].commits
    assert 0 < len(before) < len(sent(made, "yolo"))
    assert "may not write to me/captions (403)" in said(capsys)
    hub.refuse = lambda *_: None
    assert publish(made, "yolo", "--public") == 0
    repository = hub.repositories["me/captions"]
    assert repository.branches["main"] == sent(made, "yolo")
    after = [path for commit in repository.commits[1:] for path in commit]
    assert not set(before) & set(after)
    assert "with images ->" in said(capsys)


@pytest.mark.usefixtures("hurried")
def test_one_failure_of_the_hub_is_retried(made: Path, hub: WritableHub) -> None:
    failures = iter([500, 503])
    hub.refuse = lambda method, path: next(failures, None) if "/commit/" in path else None
    assert publish(made, "coco", "--public") == 0
    assert hub.repositories["me/captions"].branches["main"] == sent(made, "coco")


@pytest.mark.filterwarnings("ignore:Use 'content")  # of the HTTP library, to huggingface_hub
@pytest.mark.usefixtures("hurried")
def test_a_large_file_is_sent_once_and_retried_after_a_failure(
    made: Path, hub: WritableHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    hub.large_bytes = 5_000
    failures = iter([500])
    hub.refuse = lambda method, path: next(failures, None) if path.startswith("/lfs/") else None
    assert publish(made, "coco", "--public") == 0
    assert hub.objects
    assert hub.repositories["me/captions"].branches["main"] == sent(made, "coco")
    assert len([each for each in hub.requests if "/lfs/" in each and each.startswith("PUT")]) == (
        len(hub.objects) + 1
    )


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize(
    ("where", "status", "code", "remedy"),
    [
        ("whoami", 401, 2, "does not accept the token"),
        ("repos/create", 403, 2, "use a token with the role `write` of a member of me"),
        ("preupload", 404, 2, "check the owner and the name"),
        ("preupload", 429, 1, "wait some minutes, then run the same command again"),
        ("preupload", 503, 1, "run the same command again"),
        ("commit", 413, 2, "refused to publish me/captions (413)"),
    ],
)
def test_each_refusal_has_its_remedy(
    where: str, status: int, code: int, remedy: str, made: Path, hub: WritableHub, capsys: Said
) -> None:
    hub.refuse = lambda method, path: status if where in path else None
    assert publish(made, "coco", "--public") == code
    captured = capsys.readouterr()
    printed = " ".join(captured.err.split())
    assert remedy in printed
    assert TOKEN not in captured.out + captured.err
    files = [path.read_bytes() for path in (made / "out").rglob("*") if path.is_file()]
    assert not any(TOKEN.encode() in data for data in files)


@pytest.mark.usefixtures("hurried")
def test_a_hub_that_cannot_be_reached_is_named(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert publish(made, "coco", "--public") == 1
    printed = said(capsys)
    assert "cannot send to the hub at http://127.0.0.1:9" in printed
    assert "check the network and HF_ENDPOINT" in printed


def test_without_a_token_it_says_where_to_get_one(
    made: Path, hub: WritableHub, monkeypatch: pytest.MonkeyPatch, capsys: Said, tmp_path: Path
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    assert publish(made, "coco", "--public") == 2
    assert "set HF_TOKEN or run `hf auth login`" in said(capsys)
    assert hub.requests == []


def test_a_card_that_the_hub_does_not_accept_is_named(
    made: Path, hub: WritableHub, tmp_path: Path, capsys: Said
) -> None:
    arguments = [str(made / "out"), str(tmp_path / "boxes"), "--format", "boxes"]
    assert run_command(["export", *arguments, "--license", "MIT"]) == 0  # not known to this hub
    assert publish(tmp_path, "boxes", "--public") == 2
    assert '"license" must be one of [...]; correct its README.md' in said(capsys)
    assert hub.repositories["me/captions"].commits == []


@pytest.mark.parametrize("options", [(), ("--private", "--public")])
def test_who_can_see_it_must_be_said(
    options: tuple[str, ...], made: Path, hub: WritableHub, capsys: Said
) -> None:
    assert publish(made, "coco", *options) == 2
    assert "give --private or --public, one of them" in said(capsys)
    assert hub.requests == []


@pytest.mark.parametrize(("asked", "there"), [("--private", "public"), ("--public", "private")])
def test_a_dataset_of_another_visibility_is_left_alone(
    asked: str, there: str, made: Path, hub: WritableHub, capsys: Said
) -> None:
    assert publish(made, "coco", f"--{there}") == 0
    assert publish(made, "yolo", asked) == 2
    assert f"me/captions of the hub is {there}; publish with --{there}" in said(capsys)
    assert len(hub.repositories["me/captions"].commits) == 1


def test_a_dry_run_lists_all_and_sends_nothing(made: Path, hub: WritableHub, capsys: Said) -> None:
    assert publish(made, "yolo", "--private", "--dry-run") == 0
    printed = said(capsys)
    assert all(path in printed for path in sent(made, "yolo"))
    assert f"{len(sent(made, 'yolo'))} files" in printed
    assert "with images -> private dataset me/captions" in printed
    assert hub.requests == []
    assert not any((made / "yolo").glob("**/.cache"))


def spoil(folder: Path, **changes: Any) -> None:
    record = json.loads((folder / EXPORT_KEY).read_text())
    (folder / EXPORT_KEY).write_text(json.dumps({**record, **changes}))


def test_only_a_whole_export_is_published(
    made: Path, hub: WritableHub, tmp_path: Path, capsys: Said
) -> None:
    out, dest = str(made / "out"), tmp_path / "boxes"
    assert run_command(["export", out, str(dest), "--format", "boxes"]) == 0
    spoil(dest, is_complete=False)
    assert publish(tmp_path, "boxes", "--public") == 2
    assert "is an unfinished export" in said(capsys)
    spoil(dest, is_complete=True)
    [part] = (dest / "data").iterdir()
    part.rename(tmp_path / "gone")
    assert publish(tmp_path, "boxes", "--public") == 2
    assert "holds 2 files, but the export wrote 3" in said(capsys)
    assert publish(tmp_path, "nothing", "--public") == 2
    assert "holds no export" in said(capsys)
    assert run_command(["publish", "s3://bucket/coco", "me/captions", "--public"]) == 2
    assert "is not a local directory" in said(capsys)
    assert run_command(["publish", str(made / "coco"), "captions", "--public"]) == 2
    assert "give it as owner/name" in said(capsys)
    assert hub.requests == []


def test_a_dataset_that_is_gone_is_not_needed(
    made: Path, hub: WritableHub, tmp_path: Path, capsys: Said
) -> None:
    write_dataset(tmp_path, {"a.tar": (pictures(1), [[an_annotation()]])})
    arguments = [str(tmp_path / "out"), str(tmp_path / "boxes"), "--format", "boxes"]
    assert run_command(["export", *arguments]) == 0
    (tmp_path / "out").rename(tmp_path / "moved")
    assert publish(tmp_path, "boxes", "--public") == 2
    assert "leave the note out with --no-record" in said(capsys)
    assert hub.requests == []
    assert publish(tmp_path, "boxes", "--public", "--no-record") == 0
    assert not (tmp_path / "out").exists()
