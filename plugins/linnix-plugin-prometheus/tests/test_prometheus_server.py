"""A real Prometheus server scrapes a real ``linnix run``."""

import contextlib
import subprocess
import sys

import httpx
import pytest

from linnix_core.testing.waiting import eventually

HANG_S = 45.0


@pytest.fixture(scope="module")
def agent(started, free_port, tmp_path_factory):
    """``linnix run`` with the second listener; the client of that."""
    tmp_path = tmp_path_factory.mktemp("agent")
    port = free_port()
    config = tmp_path / "linnix.toml"
    config.write_text(
        f"""
        [agent]
        data_dir = "{tmp_path / "data"}"
        [collectors.psutil]
        interval = "1s"
        [handlers.prometheus]
        metrics_listen = "127.0.0.1:{port}"
        required = true
        """
    )
    process = started(
        tmp_path / "linnix.log", sys.executable, "-m", "linnix_core", "run", "-c", str(config)
    )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:

        def answers():
            assert process.poll() is None, (tmp_path / "linnix.log").read_text()
            with contextlib.suppress(httpx.TransportError):
                return client.get("/healthz").status_code == 200

        eventually(answers)
        yield client


@pytest.fixture
def prometheus(program, started, free_port, tmp_path, agent):
    """A server that scrapes the agent every second; answers queries with values by labels."""
    executable, port = program("prometheus"), free_port()
    target = str(agent.base_url).removeprefix("http://").rstrip("/")
    config = tmp_path / "prometheus.yml"
    config.write_text(
        f"""
        global: {{scrape_interval: 1s, scrape_timeout: 1s}}
        scrape_configs:
          - job_name: linnix
            metrics_path: /metrics/prometheus
            static_configs: [{{targets: ["{target}"]}}]
        """
    )
    process = started(
        tmp_path / "prometheus.log",
        str(executable),
        f"--config.file={config}",
        f"--storage.tsdb.path={tmp_path / 'tsdb'}",
        "--storage.tsdb.retention.size=16MB",
        f"--web.listen-address=127.0.0.1:{port}",
    )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:

        def query(expression):
            assert process.poll() is None, (tmp_path / "prometheus.log").read_text()
            try:
                answer = client.get("/api/v1/query", params={"query": expression}).json()
            except (httpx.TransportError, ValueError):
                return []
            assert answer.get("status", "success") == "success", answer
            return [(row["metric"], float(row["value"][1])) for row in answer["data"]["result"]]

        yield query


def test_a_real_prometheus_scrapes_a_real_run(prometheus, tmp_path):
    eventually(lambda: [value for _, value in prometheus("up") if value == 1])
    (events,) = eventually(lambda: prometheus("linnix_events_total > 0"))
    assert events[0]["job"] == "linnix"
    states = prometheus('linnix_component_state{state="running"} == 1')
    assert {"collectors.psutil", "handlers.prometheus"} <= {m["component"] for m, _ in states}
    # This test is a process that the agent follows.
    name = 'process_memory_usage_bytes{process_executable_name=~"python.*"} > 0'
    eventually(lambda: prometheus(name))
    quantile = "histogram_quantile(0.99, sum by (le) (linnix_stage_latency_seconds_bucket))"
    eventually(lambda: prometheus(quantile))
    (scraped,) = prometheus("scrape_samples_scraped")
    (kept,) = prometheus("scrape_samples_post_metric_relabeling")
    assert scraped[1] == kept[1] > 50
    log = (tmp_path / "prometheus.log").read_text()
    assert "level=warn" not in log.replace("component=k8s", ""), log
    assert "level=error" not in log, log


def test_promtool_finds_nothing_to_say(program, agent):
    text = agent.get("/metrics/prometheus").content
    promtool = str(program("promtool"))
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
