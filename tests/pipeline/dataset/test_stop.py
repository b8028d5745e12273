"""Stop requests through the storage."""

from pathlib import Path

import pytest

from pipeline.dataset.stop import StopRequest, ask_to_stop
from pipeline.errors import StorageError
from pipeline.storage import OutputStore, open_output
from tests.support.patience import wait_for

SOON_S = 0.02


@pytest.fixture
def store(tmp_path: Path) -> OutputStore:
    return open_output(str(tmp_path / "out"))


def test_a_request_is_noticed_and_removed(store: OutputStore) -> None:
    with StopRequest(store, "a", poll_s=SOON_S) as request:
        assert not request.is_made
        ask_to_stop(store, "a")
        wait_for(lambda: request.is_made)
    assert store.list("stop/") == []


def test_a_request_that_comes_too_late_is_removed(store: OutputStore) -> None:
    with StopRequest(store, "a", poll_s=60) as request:
        ask_to_stop(store, "a")
    assert not request.is_made
    assert store.list("stop/") == []


def test_a_request_that_came_before_is_noticed(store: OutputStore) -> None:
    ask_to_stop(store, "a")
    with StopRequest(store, "a", poll_s=SOON_S) as request:
        wait_for(lambda: request.is_made)


def test_a_request_is_for_one_run(store: OutputStore) -> None:
    ask_to_stop(store, "another")
    looks = []

    class Looked:  # in place of a store
        def get(self, key: str) -> object:
            looks.append(key)
            return store.get(key)

        def delete(self, key: str) -> None:
            store.delete(key)

    with StopRequest(Looked(), "a", poll_s=SOON_S) as request:  # type: ignore[arg-type]
        wait_for(lambda: len(looks) >= 2)
        assert not request.is_made
    assert store.list("stop/") == ["stop/another"]


def test_a_store_that_does_not_answer_is_asked_again(
    store: OutputStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    get, answers = store.get, iter([StorageError("busy")])

    def once_busy(key: str) -> object:
        if (error := next(answers, None)) is not None:
            raise error
        return get(key)

    monkeypatch.setattr(type(store), "get", lambda self, key: once_busy(key))
    ask_to_stop(store, "a")
    with StopRequest(store, "a", poll_s=SOON_S) as request:
        wait_for(lambda: request.is_made)
    assert "busy" in caplog.text
