"""The dashboard, against the metrics that there are."""

import json
import re
from pathlib import Path

from pipeline.execution.metrics import COUNTERS, GAUGES, HISTOGRAMS
from tests.support.deployment import DASHBOARD, EXPRESSIONS, METRICS_SHOWN
from tests.support.promtool import promtool


def test_dashboard_names_each_metric_as_ray_serves_it() -> None:
    served = {
        *(f"ray_{name}_total" for name in COUNTERS),
        *(f"ray_{name}" for name in GAUGES),
        *(f"ray_{name}_bucket" for name in HISTOGRAMS),
    }
    assert served == METRICS_SHOWN


def test_each_panel_tells_jobs_apart() -> None:
    assert all(re.search(r"(sum|max) by \(kosmos2_job\b", each) for each in EXPRESSIONS)
    assert all('{kosmos2_job=~"$job"}' in each for each in EXPRESSIONS)


def test_panels_have_places_of_their_own() -> None:
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places) == len({panel["id"] for panel in DASHBOARD["panels"]})


def test_prometheus_can_parse_each_expression(tmp_path: Path) -> None:
    texts = [re.sub(r"\$\w+", ".*", each) for each in EXPRESSIONS]
    rules = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(texts)]
    path = tmp_path / "rules.yaml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"SUCCESS: {len(texts)} rules found" in promtool("check", "rules", path)
