"""`kosmos2 stop`, next to a run that it is meant for."""

import threading
from pathlib import Path

import pytest

from jobs.cli import run_command
from pipeline.dataset.layout import lease_key
from pipeline.dataset.lease import Lease
from pipeline.dataset.stop import StopRequest
from pipeline.storage import open_output

SOON_S = 0.02


def test_a_run_is_asked_to_stop_and_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_output(str(tmp_path))
    lease = Lease(store, key=lease_key())
    lease.acquire()

    def run() -> None:
        with StopRequest(store, lease.run_id, poll_s=SOON_S) as request:
            while not request.is_made:
                threading.Event().wait(SOON_S)
            lease.release()

    driver = threading.Thread(target=run)
    driver.start()
    assert run_command(["stop", str(tmp_path), "--wait"]) == 0
    driver.join()
    assert lease.run_id in capsys.readouterr().err
    assert store.list("stop/") == store.list("leases/") == []


def test_a_run_that_does_not_listen_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lease = Lease(open_output(str(tmp_path)), key=lease_key())
    lease.acquire()
    assert run_command(["stop", str(tmp_path), "--wait", "--timeout", "0"]) == 5
    lease.release()
    assert "did not stop within 0 s" in capsys.readouterr().err


def test_a_place_without_a_dataset_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["stop", str(tmp_path)]) == 2
    assert "holds no dataset" in capsys.readouterr().err
