"""Other versions of Ray, and tokens: told in one sentence before anything starts."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from jobs.remote import job_server
from jobs.remote.job_server import JobServer, JobServerError
from pipeline.driver.run import run
from pipeline.errors import SpecError
from pipeline.execution import cluster
from pipeline.execution.environment import prepare_environment, token_source
from pipeline.execution.ray_version import check_cluster_version, is_supported, mismatch
from pipeline.spec.job import JobSpec

# As `ray.init` says it.
DIFFERENCE = """Version mismatch: The cluster was started with:
    Ray: {there}
    Python: 3.12.1
This process on node 127.0.0.1 was started with:
    Ray: 2.60.0
    Python: 3.11.7
"""
TOKENS = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        *((version, True) for version in ("2.53.0", "2.60.0", "2.60.4", "2.55.0rc1", "2.57")),
        *((version, False) for version in ("2.52.1", "2.61.0", "2.6.0", "3.53.0", "1.60", "", "x")),
    ],
)
def test_versions_inside_and_outside_of_the_range(version: str, expected: bool) -> None:
    assert is_supported(version) == expected


def test_a_run_with_another_ray_ends_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.__version__", "2.51.2")
    with pytest.raises(SpecError, match=r"^Ray 2\.51\.2 .*2\.53 to 2\.60; .*pip install 'ray\["):
        run(JobSpec(input=str(tmp_path), output=str(tmp_path / "out")))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SpecError, match=r"^Ray 2\.51\.2 is installed here"):
        JobServer("http://127.0.0.1:1")


@pytest.mark.parametrize(
    ("there", "remedy"),
    [
        ("2.55.1", r"pip install 'ray\[data,default\]==2.55.1', with Python 3.12.1\), or use"),
        ("2.51.0", r"works with Ray 2.53 to 2.60: use a cluster"),
    ],
)
def test_a_cluster_of_another_version_is_told_with_both(
    there: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.__version__", "2.60.0")
    error = cluster._not_connected("head:6379", RuntimeError(DIFFERENCE.format(there=there)))
    both = rf"head:6379 runs Ray {there} on Python 3.12.1, this machine Ray 2.60.0 on Python 3"
    with pytest.raises(SpecError, match=rf"{both}.*{remedy}"):
        raise error
    assert mismatch("no route to host", "head:6379") is None


def test_a_cluster_that_an_old_client_cannot_ask_is_asked_through_its_job_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ray.__version__", "2.53.0")
    asked = []
    monkeypatch.setattr(cluster, "job_server_version", lambda url: asked.append(url) or "2.60.0")
    monkeypatch.setattr("socket.create_connection", lambda *to: SimpleNamespace(close=bool))
    error = cluster._not_connected("head:6379", ConnectionError())
    assert "runs Ray 2.60.0, this machine Ray 2.53.0" in str(error)
    assert asked == ["http://head:8265"]


def test_a_job_server_of_another_version_gets_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    client = SimpleNamespace(get_address=lambda: "http://head:8265")
    monkeypatch.setattr(job_server, "JobSubmissionClient", lambda address: client)
    monkeypatch.setattr(job_server, "job_server_version", lambda address: "2.70.0")
    with pytest.raises(SpecError, match=r"head:8265 runs Ray 2.70.0, this machine Ray 2\.\d+.*use"):
        JobServer("http://head:8265")
    check_cluster_version("2.53.0", "http://head:8265")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment without a token."""
    for name in TOKENS:
        monkeypatch.setenv(name, "")  # so that it is restored
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def mode_afterwards(monkeypatch: pytest.MonkeyPatch) -> str | None:
    environment = dict(cluster.os.environ)
    monkeypatch.setattr("os.environ", environment)
    prepare_environment()
    return environment.get("RAY_AUTH_MODE")


@pytest.mark.parametrize("place", ["nowhere", "own file", "file", "variable"])
def test_the_token_that_ray_would_find_is_used(
    place: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = home / ".ray" / "auth_token"
    if place == "own file":
        own.parent.mkdir()
        own.write_text("a" * 64)
    elif place == "file":
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home / "token"))
    elif place == "variable":
        monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 64)
    source = {"own file": str(own), "file": TOKENS[2], "variable": TOKENS[1]}.get(place)
    assert token_source() == source
    assert mode_afterwards(monkeypatch) == ("token" if source else None)


def test_a_mode_that_was_chosen_stays(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 64)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert mode_afterwards(monkeypatch) == "disabled"


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "requires a token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"),
        ({"RAY_AUTH_TOKEN": "x"}, "requires a token: set RAY_AUTH_MODE=token"),
        ({"RAY_AUTH_TOKEN": "x", "RAY_AUTH_MODE": "token"}, "refuses the token of RAY_AUTH_TOKEN"),
    ],
)
def test_a_refusal_says_what_is_missing(
    environment: dict[str, str], said: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(JobServerError, match=rf"job server at http://head {said}"),
        job_server._as_ours("http://head"),
    ):
        raise job_server.exceptions.AuthenticationError("no")
