"""The dashboard for Grafana asks for what is exported, in a language that Prometheus reads."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from linnix_core import Metric, ProcessEvent, ProcessSample

DASHBOARD = Path(__file__).parents[3] / "examples" / "grafana" / "linnix.json"


@pytest.fixture(scope="module")
def dashboard():
    return json.loads(DASHBOARD.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def expressions(dashboard):
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]


def test_every_metric_that_it_asks_for_is_exported(told, expressions):
    handler = told(metrics=[Metric("linnix_processes", 1)])
    handler.batch(
        ProcessEvent("exec", pid=2, start_ns=0, exe="/a"),
        ProcessSample(2, 0, 1, cpu_percent=1.0, rss_bytes=1),
    )
    text = handler.exported().text
    exported = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    asked = {
        re.sub(r"_bucket$", "", name)
        for expression in expressions
        for name in re.findall(r"\b(?:linnix|process)_[a-z_]+(?=\{)", expression)
    }
    assert len(asked) > 15
    assert asked <= exported


def test_prometheus_reads_every_expression(program, expressions, tmp_path):
    known = [
        expression.replace("$__rate_interval", "1m").replace("$instance", ".*")
        for expression in expressions
    ]
    assert not [expression for expression in known if "$" in expression]
    rules = tmp_path / "rules.yml"
    # JSON is YAML.
    rules.write_text(
        json.dumps(
            {
                "groups": [
                    {
                        "name": "panels",
                        "rules": [
                            {"record": f"panel_{n}", "expr": expression}
                            for n, expression in enumerate(known)
                        ],
                    }
                ]
            }
        )
    )
    command = [str(program("promtool")), "check", "rules", str(rules)]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_panels_have_titles_help_and_places_of_their_own(dashboard):
    taken = set()
    for panel in dashboard["panels"]:
        assert panel["title"]
        assert panel["type"] == "row" or panel["description"]
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
