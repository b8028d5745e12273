"""Fixtures for all tests."""

import os

# Before anything imports torch: on two cores, threads of several processes only get in each
# other's way. Results do not depend on it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray's workers would give way to every other process of the machine, and tests wait for them.
os.environ.setdefault("RAY_worker_niceness", "0")

import atexit
import gc
import shutil
import sys
import tempfile
from collections.abc import Generator, Iterator
from uuid import uuid4

import pytest
from xdist.remote import Producer

from tests.support.azurite import Azurite, running_azurite
from tests.support.bucket import Bucket
from tests.support.cluster import end_commands
from tests.support.google_store import GoogleStore, running_google_store
from tests.support.patience import measure, patient
from tests.support.s3 import S3Server, running_s3_server
from tests.support.scheduling import ByModule, is_end_to_end

pytest.register_assert_rewrite("tests.support.export_contract")  # or its failures say nothing

# Cache bytecode, whatever the environment says: to compile all tests takes each process seconds.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Nothing is left in the user's cache.
os.environ["KOSMOS2_CACHE"] = tempfile.mkdtemp(prefix="kosmos2-cache-")
atexit.register(shutil.rmtree, os.environ["KOSMOS2_CACHE"], ignore_errors=True)


measure()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """End-to-end tests come first: among several processes theirs has most to do."""
    items.sort(key=lambda item: not is_end_to_end(item.nodeid))
    for item in items:
        own = item.get_closest_marker("timeout")
        seconds = own.args[0] if own else float(config.getini("timeout"))
        item.add_marker(pytest.mark.timeout(patient(seconds)), append=False)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep modules and tests out of garbage collections: they stay, and to look through them again
    and again would take seconds."""
    gc.disable()
    found = yield
    gc.freeze()
    gc.enable()
    atexit.register(gc.unfreeze)  # or extension modules report them as leaks
    return found


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByModule:
    config.option.loadscopereorder = False  # it would sort modules by their number of tests
    return ByModule(config, log)


@pytest.fixture(autouse=True)
def leave_no_command() -> Iterator[None]:
    yield
    end_commands()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    with running_s3_server() as server:
        yield server


@pytest.fixture
def bucket(s3_server: S3Server) -> Bucket:
    """A fresh bucket for a job."""
    return Bucket(name=s3_server.make_bucket(f"job-{uuid4().hex[:12]}"), server=s3_server)


@pytest.fixture
def s3_bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a fresh bucket; the environment lets any client reach it."""
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server.make_bucket(f"bucket-{uuid4().hex[:12]}")


@pytest.fixture(scope="session")
def azurite() -> Iterator[Azurite]:
    with running_azurite() as server:
        yield server


@pytest.fixture
def container(azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a fresh container of Azurite; the environment lets any client reach it."""
    for name, value in azurite.environment.items():
        monkeypatch.setenv(name, value)
    return azurite.make_container(f"container-{uuid4().hex[:12]}")


@pytest.fixture
def google_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[GoogleStore]:
    """Small and our own, with a fresh bucket; the environment lets any client reach it."""
    with running_google_store(f"bucket-{uuid4().hex[:12]}") as store:
        monkeypatch.setenv("GOOGLE_BASE_URL", store.endpoint_url)
        monkeypatch.setenv("GOOGLE_BEARER_TOKEN", "test-token")
        yield store
