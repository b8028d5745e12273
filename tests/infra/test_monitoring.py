"""Prometheus and Grafana of infra/compose.yaml: what they are told, against each other."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.deployment import INFRA, NODES, compose
from tests.support.promtool import promtool

CONFIG = INFRA / "prometheus" / "prometheus.yaml"
PROVISIONING = INFRA / "grafana" / "provisioning"
SERVICES = compose()["services"]


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


def test_prometheus_takes_its_configuration() -> None:
    assert "SUCCESS" in promtool("check", "config", CONFIG)


def test_every_node_is_asked_where_it_serves_its_metrics() -> None:
    [ray] = read(CONFIG)["scrape_configs"]
    [found] = ray["dns_sd_configs"]
    assert found["names"] == NODES
    for node in NODES:
        assert f"--metrics-export-port={found['port']} " in SERVICES[node]["command"]


def test_prometheus_is_given_that_configuration() -> None:
    folder = f"./{CONFIG.parent.relative_to(INFRA)}:/etc/prometheus:ro"
    assert folder in SERVICES["prometheus"]["volumes"]
    assert f"--config.file=/etc/prometheus/{CONFIG.name}" in SERVICES["prometheus"]["command"]


def test_grafana_asks_that_prometheus() -> None:
    [source] = read(PROVISIONING / "datasources" / "prometheus.yaml")["datasources"]
    port = SERVICES["prometheus"]["ports"][0].rpartition(":")[2]
    assert (source["type"], source["url"]) == ("prometheus", f"http://prometheus:{port}")
    assert source["isDefault"]  # the dashboard has none of its own


def test_grafana_finds_the_dashboard() -> None:
    [provider] = read(PROVISIONING / "dashboards" / "kosmos2.yaml")["providers"]
    mounts = [volume.split(":") for volume in SERVICES["grafana"]["volumes"]]
    assert ["./grafana/provisioning", "/etc/grafana/provisioning", "ro"] in mounts
    [dashboard] = [target for source, target, _ in mounts if source.endswith("kosmos2.json")]
    assert Path(dashboard).parent == Path(provider["options"]["path"])


@pytest.mark.parametrize("path", sorted(PROVISIONING.rglob("*.yaml")), ids=lambda path: path.name)
def test_provisioning_files_say_their_version(path: Path) -> None:
    assert read(path)["apiVersion"] == 1
