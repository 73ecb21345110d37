"""What the routes answer, from a real agent over a real socket."""

import json
import time
from urllib.parse import urljoin

import attrs
import jsonschema
import pytest
from http_client import PATIENCE_S, Alarm, Guess, Reader, boot_id, family

from linnix_core import (
    Feedback,
    Loss,
    Mount,
    PluginUnavailable,
    Pressure,
    ProcessEvent,
    Query,
    Result,
    decode,
    hookimpl,
    load_bundle,
)
from linnix_plugin_http.operations import PIECE_BYTES
from linnix_plugin_http.state import State


@pytest.fixture
def client(busy):
    return busy[1]


# --- processes --------------------------------------------------------------------------


def test_processes_are_listed_with_what_they_use(client):
    found = {each["pid"]: each for each in client.get("/processes")}
    assert set(found) == {1, 10, 11, 12, 13}
    worker = found[11]
    assert worker["comm"] == "worker"
    assert (worker["ppid"], worker["parent_start_ns"]) == (10, 100_000_000)
    assert worker["cpu_pct"] == 150.0
    assert worker["mem_pct"] == round(2**20 / (8 * 2**30) * 100, 3)
    assert worker["args"] == ["worker", "-x"]
    assert worker["state"] == "running"
    assert worker["age_sec"] > 0
    assert found[13]["cpu_pct"] is None


CHOSEN = [
    ("sort=cpu_pct:desc", [11, 12, 1, 10, 13]),
    ("sort=pid:desc", [13, 12, 11, 10, 1]),
    ("sort=comm", [13, 1, 10, 11, 12]),
    ("filter=cpu_pct%3E100", [11]),
    ("filter=cpu_pct%3C100", [12]),
    ("filter=rss_bytes%3E=1048576&sort=pid", [11, 12]),
    ("filter=comm=worker&filter=mem_pct%3E1", [12]),
    ("filter=comm!=worker", [1, 10, 13]),
    ("filter=exe~bin/id", [13]),
    ("filter=ppid=10&limit=2", [11, 12]),
    ("limit=2&offset=3", [12, 13]),
    ("offset=99", []),
]


def test_processes_are_filtered_sorted_and_paged(client):
    for query, pids in CHOSEN:
        assert [each["pid"] for each in client.get(f"/processes?{query}")] == pids, query


def test_a_page_leads_to_the_next(client):
    _, headers, body = client.request("GET", "/processes?filter=pid%3E1&sort=pid:desc&limit=3")
    assert headers["x-total-count"] == "4"
    assert [each["pid"] for each in json.loads(body)] == [13, 12, 11]
    following = headers["link"].partition(">")[0].lstrip("<")
    _, headers, body = client.request("GET", urljoin("/processes?limit=3", following))
    assert [each["pid"] for each in json.loads(body)] == [10]
    assert "link" not in headers


WRONG = [
    "filter=nonsense",
    "filter=nosuch%3E1",
    "filter=cpu_pct%3Emuch",
    "filter=comm%3E1",
    "filter=pid~1",
    "sort=nosuch:desc",
    "sort=pid:sideways",
    "limit=0",
    "limit=many",
    "offset=-1",
]


def test_what_cannot_be_asked_is_refused_with_a_sentence(client):
    for query in WRONG:
        status, said = client.refused(f"/processes?{query}")
        assert status == 400, query
        assert said.startswith(query.partition("=")[0])


def test_a_refusal_says_in_words_what_was_expected(client):
    for path, said, hint in (
        ("/processes?limit=0", "limit: expected a whole number >= 1", None),
        ("/processes/one", "pid: expected a whole number", None),
        ("/incidents?open=maybe", "open: expected true or false", None),
        (
            "/incidents?severity=bad",
            "severity: invalid enum value 'bad'",
            "one of info, low, medium, high, critical",
        ),
    ):
        status, _, body = client.request("GET", path)
        assert (status, json.loads(body)) == (400, {"error": said, "hint": hint}), path


def test_one_process(client):
    assert client.get("/processes/12")["comm"] == "worker"
    assert client.refused("/processes/4711") == (404, "Not found")
    assert client.refused("/processes/one")[0] == 400
    assert client.refused("/processes/99999999999999999999999")[0] == 400


def test_children_of_a_process(client):
    assert [each["pid"] for each in client.get("/ppid/10")] == [11, 12, 13]
    assert client.get("/ppid/13") == []


def test_the_family_of_a_process(client):
    found = client.get("/graph/11")
    assert found["root"] == 11
    assert found["complete"] is True
    assert {node["pid"]: (node["relationship"], node["level"]) for node in found["nodes"]} == {
        11: ("self", 0),
        10: ("ancestor", -1),
        1: ("ancestor", -2),
        12: ("sibling", 0),
        13: ("sibling", 0),
    }
    levels = {n["pid"]: n["level"] for n in client.get("/graph/1")["nodes"]}
    assert levels == {1: 0, 10: 1, 11: 2, 12: 2, 13: 2}
    assert client.refused("/graph/4711") == (404, "PID not found")


def test_a_parent_that_nobody_has_seen_is_a_virtual_root(serve):
    lonely = ProcessEvent(
        "fork", pid=7, start_ns=70_000_000, ppid=6, parent_start_ns=60_000_000, comm="x", ts_ns=1
    )
    _, client = serve([lonely])
    assert [(n["pid"], n["relationship"]) for n in client.get("/graph/7")["nodes"]] == [
        (7, "self"),
        (6, "virtual_root"),
    ]


def test_the_tree_of_the_living(client):
    found = client.get("/tree")
    assert found["live"] is found["complete"] is True
    assert found["total"] == 5
    assert [each["pid"] for each in client.get("/tree?pid=10")["processes"]] == [10, 11, 12, 13]
    assert client.refused("/tree?pid=4711")[0] == 404
    assert client.refused("/tree?at=yesterday")[0] == 400


def test_the_tree_of_a_moment_has_those_who_ended_since(serve):
    now = time.time_ns()
    events = family()[:5]
    for event in events:
        event.ts_ns = now - 60 * 10**9
    ended, _, _ = events[4], events[3], events[2]
    leaving = ProcessEvent(
        "exit",
        pid=ended.pid,
        start_ns=ended.start_ns,
        boot_id=ended.boot_id,
        ts_ns=now - 20 * 10**9,
        exit_code=3,
        duration_ns=40 * 10**9,
    )
    renamed = ProcessEvent(
        "exec",
        pid=12,
        start_ns=120_000_000,
        boot_id=ended.boot_id,
        comm="other",
        ts_ns=now - 10 * 10**9,
    )
    _, client = serve([*events, *family()[5:], leaving, renamed])
    then = client.get("/tree?at=30s")
    assert {each["pid"] for each in then["processes"]} == {1, 10, 11, 12, 13}
    assert then["live"] is False
    assert then["changed"] == [12]
    (gone,) = [each for each in then["processes"] if each["pid"] == 13]
    assert (gone["state"], gone["exit_code"], gone["comm"]) == ("exited", 3, "idler")
    assert {each["pid"] for each in client.get("/tree?at=15s")["processes"]} == {1, 10, 11, 12}
    assert client.get("/tree?at=15s")["changed"] == [12]
    assert client.get("/tree?at=5s")["changed"] == []
    # What is measured now is not what it was then.
    (worker,) = [each for each in then["processes"] if each["pid"] == 11]
    assert worker["cpu_pct"] is worker["rss_bytes"] is worker["mem_pct"] is None
    latest = client.get("/processes/11")
    assert latest["cpu_pct"] == 150.0
    assert latest["age_sec"] - worker["age_sec"] > 29


def test_a_moment_before_the_run_is_never_complete(client):
    found = client.get("/tree?at=1h")
    assert found["complete"] is False
    assert "before this run" in found["why_incomplete"]


def test_the_living_are_pushed_again_and_again(client):
    with Reader(client, "/processes/live?sort=cpu_pct:desc&limit=1") as reader:
        first, second = reader.events(2)
    for event in (first, second):
        assert event["event"] == "processes"
        assert event["data"]["event"] == "update"
        assert event["data"]["total"] == 5
        assert [each["pid"] for each in event["data"]["processes"]] == [11]
    assert client.refused("/processes/live?sort=nosuch")[0] == 400


def test_thousands_are_one_list_in_their_order(serve):
    boot = boot_id()
    pids = range(1, 1002)
    _, client = serve(
        [
            ProcessEvent("seen", pid=pid, start_ns=pid * 10_000_000, ts_ns=1, boot_id=boot)
            for pid in pids
        ],
    )
    assert [each["pid"] for each in client.get("/processes")] == list(pids)
    assert [each["pid"] for each in client.get("/tree")["processes"]] == list(pids)
    assert len(client.get("/processes?limit=400")) == 400
    # An answer that is sent in pieces says how long it is, and ends there.
    status, headers, body = client.request("GET", "/processes")
    assert (status, int(headers["content-length"])) == (200, len(body))
    assert len(body) > PIECE_BYTES
    status, headers, body = client.request("HEAD", "/processes")
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) > PIECE_BYTES


# --- findings ---------------------------------------------------------------------------


def test_alerts_as_a_list_and_as_a_timeline(client):
    (alert,) = client.get("/alerts", Accept="application/json")
    assert alert["rule"] == "busy"
    assert alert["subject"]["key"]["pid"] == 11
    (entry,) = client.get("/timeline")
    assert entry == {
        "id": alert["id"],
        "timestamp": alert["ts_ns"] / 1e9,
        "severity": "high",
        "rule": "busy",
        "message": "worker (pid 11) uses 150 % of a core",
        "host": "testhost",
        "class": "cpu_spin",
        "pid": 11,
        "comm": "worker",
    }
    assert client.get("/timeline?severity=high&rule=busy&start=1h&end=4102444800") == [entry]
    assert client.get(f"/alerts/{entry['id']}")["id"] == entry["id"]
    assert client.refused("/alerts/nosuch") == (404, "Not found")
    assert client.get("/timeline?severity=low") == []
    assert client.get("/timeline?rule=other") == []
    assert client.get("/timeline?end=1h") == []
    assert client.get("/timeline?start=4102444800") == []
    assert client.refused("/timeline?severity=High")[0] == 400
    assert client.refused("/timeline?start=soon")[0] == 400


def test_an_incident_with_its_evidence_and_its_insight(client):
    (listed,) = client.get("/incidents")
    assert listed["class"] == listed["event_type"] == "cpu_spin"
    assert (listed["target_pid"], listed["target_name"]) == (11, "worker")
    assert listed["llm_analysis"]
    found = client.get(f"/incidents/{listed['id']}")
    assert found["evidence"][0] == {"name": "cpu", "value": 150.0, "unit": "%"}
    assert {process["key"]["pid"] for process in found["tree"]} >= {1, 10, 11}
    assert found["investigation"]["why"] == listed["llm_analysis"]
    assert found["insights"] == [found["investigation"]]
    assert found["llm_analysis"] in found["investigation_rendered"]
    assert client.refused("/incidents/none") == (404, "no such incident")


INCIDENTS = [
    ("analyzed=true", 1),
    ("analyzed=false", 0),
    ("open=true", 1),
    ("open=false", 0),
    ("event_type=cpu_spin", 1),
    ("event_type=oom_risk", 0),
    ("severity=high", 1),
    ("severity=low", 0),
    ("since=1h", 1),
    ("since=4102444800", 0),
]


def test_incidents_are_chosen(client):
    for query, count in INCIDENTS:
        assert len(client.get(f"/incidents?{query}")) == count, query


def test_incidents_in_numbers(client):
    found = client.get("/incidents/summary")
    assert (found["total"], found["open"], found["analyzed"]) == (1, 1, 1)
    assert found["pending_analysis"] == 0
    assert found["by_event_type"] == {"cpu_spin": 1}
    assert len(found["recent"]) == 1
    found = client.get("/incidents/stats")
    assert (found["total"], found["open"], found["by_severity"]) == (1, 1, {"high": 1})


def test_insights_are_answered_from_what_is_known(client):
    (recent,) = client.get("/insights/recent")
    insight = recent["insight"]
    assert insight["class"] == "cpu_spin"
    assert recent["feedback"] is None
    assert client.get(f"/insights/{insight['id']}") == recent
    overview = client.get("/insights")
    assert overview["insight"] == insight
    assert insight["why"] in overview["summary"]
    assert overview["queued"] == []
    assert overview["top_cpu"][0]["pid"] == 11
    assert overview["metrics"] == {
        "cpu_percent": 25.0,
        "mem_percent": 25.0,
        "load_avg": [1.0, 0.5, 0.25],
    }
    assert client.refused("/insights/none") == (404, "no such insight")
    # As many as there are: the reference takes any limit, too.
    assert client.get("/insights/recent?limit=1000") == [recent]


def test_an_insight_as_a_page_of_its_own(client):
    (recent,) = client.get("/insights/recent")
    status, headers, body = client.request(
        "GET", f"/insights/{recent['insight']['id']}?format=html"
    )
    assert status == 200
    assert headers["content-type"].startswith("text/html")
    assert recent["insight"]["why"] in body.decode()


class Silent:
    """A reasoner that has nothing to say until it is told to."""

    talks = False

    @hookimpl
    def linnix_reason(self, request):
        return Guess().linnix_reason(request) if type(self).talks else None


def test_insights_queue_what_nobody_has_explained(serve, monkeypatch):
    agent, client = serve(family(), handlers={"alarm": Alarm}, reasoners={"silent": Silent})
    (incident,) = client.get("/incidents")
    assert incident["llm_analysis"] is None
    monkeypatch.setattr(Silent, "talks", True)
    overview = client.get("/insights")
    assert overview["insight"] is None
    assert overview["queued"] == [incident["id"]]
    assert agent.wait_idle(PATIENCE_S)
    overview = client.get("/insights")
    assert overview["insight"]["incident"] == incident["id"]


def test_a_failing_reasoner_is_not_asked_again_at_every_look(serve):
    _, client = serve(family(), handlers={"alarm": Alarm}, reasoners={"silent": Silent})
    assert len(client.get("/insights")["queued"]) == 1
    assert client.get("/insights")["queued"] == []


def test_an_incident_is_a_bundle_that_can_be_judged_elsewhere(busy):
    _, client = busy
    (incident,) = client.get("/incidents")
    bundle = load_bundle(client.request("GET", f"/incidents/{incident['id']}/bundle")[2])
    assert bundle.request.incident.id == incident["id"]
    assert bundle.request.facts
    assert client.refused("/incidents/none/bundle")[0] == 404


def test_an_incident_is_explained_once_more(busy):
    agent, client = busy
    (incident,) = client.get("/incidents")
    status, _, body = client.request("POST", f"/incidents/{incident['id']}/explain")
    assert (status, json.loads(body)) == (202, {"queued": True})
    assert agent.wait_idle(PATIENCE_S)
    assert len(client.get(f"/incidents/{incident['id']}")["insights"]) == 2
    assert client.refused("/incidents/none/explain", "POST")[0] == 404


class Listener:
    """Hears what people say."""

    heard: tuple[Feedback, ...] = ()

    @hookimpl
    def linnix_feedback(self, feedback):
        type(self).heard = (*self.heard, feedback)


@pytest.fixture
def heard(monkeypatch):
    monkeypatch.setattr(Listener, "heard", ())
    return Listener


def test_feedback_reaches_every_handler(serve, heard):
    agent, client = serve(
        family(), handlers={"alarm": Alarm, "ear": Listener}, reasoners={"guess": Guess}
    )
    (recent,) = client.get("/insights/recent")
    insight, incident = recent["insight"]["id"], recent["insight"]["incident"]
    for path, body in (
        (f"/insights/{insight}/feedback", {"feedback": "noise", "note": "backup"}),
        (f"/incidents/{incident}/feedback", {"feedback": "wrong", "by": "ada"}),
        ("/api/feedback", {"insight_id": insight, "label": "useful", "source": "cli"}),
        ("/api/feedback", {"insight_id": incident, "label": "useful", "user_id": "u1"}),
    ):
        status, _, answer = client.request("POST", path, body)
        assert (status, json.loads(answer)) == (200, {"status": "ok"})
    assert agent.wait_idle(PATIENCE_S)
    assert [(f.incident, f.verdict, f.note, f.by) for f in heard.heard] == [
        (incident, "noise", "backup", ""),
        (incident, "wrong", "", "ada"),
        (incident, "useful", "", "cli"),
        (incident, "useful", "", "u1"),
    ]
    assert client.get("/insights/recent")[0]["feedback"] == "useful"
    assert client.get("/incidents")[0]["feedback"] == "useful"
    assert client.get("/status")["feedback_entries"] == 4


SENSELESS = [
    ("/insights/none/feedback", {"feedback": "useful"}, 404),
    ("/incidents/none/feedback", {"feedback": "useful"}, 404),
    ("/api/feedback", {"insight_id": "none", "label": "useful"}, 404),
    ("/insights/none/feedback", {"feedback": "great"}, 400),
    ("/insights/none/feedback", {}, 400),
    ("/insights/none/feedback", {"feedback": "useful", "nosuch": 1}, 400),
    ("/insights/none/feedback", b"{", 400),
    ("/insights/none/feedback", b"\xff\xfe", 400),
    ("/insights/none/feedback", b"[" * 20_000, 400),
]


def test_feedback_that_makes_no_sense_is_refused(client):
    headers = {"Content-Type": "application/json"}
    for path, body, status in SENSELESS:
        refused = client.refused(path, "POST", body=body, headers=headers)
        assert refused[0] == status, body


def test_feedback_of_a_form_is_refused(client):
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    status, _ = client.refused(
        "/insights/none/feedback", "POST", body=b"feedback=useful", headers=form
    )
    assert status == 415


class History:
    """Keeps the findings of an earlier run, as a database would."""

    records: tuple = ()

    @hookimpl
    def linnix_query(self, query: Query) -> Result:
        found = [
            each
            for each in self.records
            if (not query.types or each.type in query.types)
            and (query.since_ns is None or each.ts_ns >= query.since_ns)
            and query.incident in (None, getattr(each, "incident", None), each.id)
        ]
        return Result(tuple(found[: query.limit]))


def test_findings_of_earlier_runs_come_from_the_history(busy, serve, monkeypatch):
    agent, client = busy
    (incident,), (alert,) = agent.incidents.recent(), client.get("/timeline")
    (insight,) = client.get("/insights/recent")
    before = client.get(f"/incidents/{incident.id}")
    earlier = []
    with Reader(client, "/stream?type=alert,incident,insight&last_event_id=0") as reader:
        hello, *events = reader.events(4)
    assert hello["event"] == "hello"

    earlier = [decode(json.dumps(event["data"])) for event in events]
    earlier.append(Feedback(incident.id, "noise", ts_ns=1, run_id=incident.run_id))
    agent.stop()
    monkeypatch.setattr(History, "records", tuple(earlier))
    _, client = serve(handlers={"history": History})
    assert client.get("/timeline") == [alert]
    assert client.get("/incidents")[0]["id"] == incident.id
    assert client.get("/incidents")[0]["llm_analysis"] == before["llm_analysis"]
    assert client.get("/incidents")[0]["feedback"] == "noise"
    assert client.get("/incidents?open=true") == []
    assert client.get(f"/incidents/{incident.id}")["insights"] == before["insights"]
    insight["feedback"] = "noise"
    assert client.get("/insights/recent") == [insight]
    assert client.get(f"/insights/{insight['insight']['id']}") == insight
    assert client.get("/incidents/stats")["feedback_entries"] == 1
    explain = f"/incidents/{incident.id}/explain"
    assert client.refused(explain, "POST")[0] == 409


def test_the_schema_of_insights_fits_the_insights(client):
    schema = client.get("/schema/insight")
    jsonschema.Draft7Validator.check_schema(schema)
    (recent,) = client.get("/insights/recent")
    keys = schema["required"]
    jsonschema.Draft7Validator(schema).validate({key: recent["insight"][key] for key in keys})
    assert client.get("/insights/schema") == schema


# --- the agent --------------------------------------------------------------------------


def test_it_is_healthy_whatever_it_sees(client):
    assert client.get("/healthz") == {
        "status": "ok",
        "kernel_instrumentation": "active",
        "transport": "given",
    }


def test_it_is_ready_while_kernel_events_are_seen(client):
    found = client.get("/readyz")
    assert (found["ready"], found["reason"]) == (True, None)


def polled():
    events = family()[:5]
    for event in events:
        event.source = "polled"
    return events


def test_it_is_not_ready_where_processes_are_polled(serve):
    _, client = serve(polled())
    status, _, body = client.request("GET", "/readyz")
    found = json.loads(body)
    assert status == 503
    assert found["ready"] is False
    assert found["transport"] == "userspace"
    assert "only what collectors.given sees" in found["reason"]
    assert client.get("/healthz")["kernel_instrumentation"] == "unavailable"


def test_it_is_ready_all_the_same_where_the_kernel_is_not_required(serve):
    _, client = serve(polled(), http={"require_kernel": False})
    found = client.get("/readyz")
    assert found["ready"] is True
    assert found["kernel_instrumentation"] == "unavailable"
    assert found["reason"]


def test_the_status_of_the_run(busy):
    agent, client = busy
    found = client.get("/status")
    assert found["host"] == "testhost"
    assert found["run_id"] == agent.run_id
    assert found["events_total"] == 5
    assert found["processes"] == 5
    assert [each["pid"] for each in found["top_cpu"]] == [11, 12]
    assert [each["pid"] for each in found["top_rss"]] == [12, 11]
    assert (found["incidents_open"], found["incidents_last_1h"]) == (1, 1)
    assert found["reasoner"]["names"] == ["guess"]
    assert found["components"]["running"] >= 3
    assert found["rss_mb"] > 1


def test_the_machine(client):
    found = client.get("/system")
    assert found["cpu_percent"] == 25.0
    assert found["mem_percent"] == 25.0
    assert found["load_avg"] == [1.0, 0.5, 0.25]
    assert found["psi_io_full_avg10"] is None


def test_a_machine_that_nobody_measures_is_not_known(serve):
    _, client = serve()
    found = client.get("/system")
    assert found["timestamp"] is None
    assert found["load_avg"] == [None, None, None]


def test_ten_minutes_of_the_machine_are_kept(serve):
    worked, machine = family()[:5], family()[-1]
    lost = Loss("collectors.x", "ring_full", 3, 3, 10**10)
    now = machine.ts_ns // 10**9 * 10**9

    def later(second, **more):
        return attrs.evolve(machine, ts_ns=now + int(second * 10**9), **more)

    first = later(0, cpu_percent=None, psi_cpu=Pressure(5.0, 1))
    # Two collectors know different things of one second.
    both = [later(1.1), later(1.2, cpu_percent=None, memory_available_bytes=2 * 2**30)]
    _, client = serve([first, *worked, lost, *both])
    found = client.get("/system/history")
    assert abs(found["timestamp"] - time.time()) < PATIENCE_S
    before, after = found["points"]
    assert before == {
        "at": now / 1e9,
        "events_total": 0,
        "lost_total": 0,
        "cpu_percent": None,
        "mem_percent": 25.0,
        "psi_cpu_some_avg10": 5.0,
    }
    assert after["at"] == now / 1e9 + 1.2
    assert (after["lost_total"], after["cpu_percent"], after["mem_percent"]) == (3, 25.0, 75.0)
    state = State()
    state.take(later(second) for second in range(700))
    assert [state.points()[each].at - now / 1e9 for each in (0, -1)] == [100.0, 699.0]


def test_components_with_their_states(client):
    found = {each["component"]: each for each in client.get("/plugins")}
    assert found["handlers.http"]["state"] == "running"
    assert found["reasoners.guess"]["kind"] == "reasoners"
    counters = found["collectors.given"]["counters"]
    assert counters["received"] == counters["handled"]


def test_losses_by_component_and_reason(serve):
    losses = [
        Loss("collectors.x", "ring_full", 3, 3, 10**10),
        Loss("collectors.x", "ring_full", 4, 7, 10**10),
        Loss("collectors.x", "throttled", 2, 2, 10**10),
        Loss("collectors.x", "missed", 0, 0, 10**10),
    ]
    _, client = serve(losses)
    found = client.get("/loss")
    assert found["lost_total"] == 9
    assert found["by_component"] == {"collectors.x": {"ring_full": 7, "throttled": 2}}
    assert [each["lost"] for each in found["windows"]] == [2, 4, 3]
    for queue in found["queues"]:
        assert queue["received"] == queue["handled"] + queue["dropped"] + queue["queued"]
    status = client.get("/status")
    assert (status["rb_overflows"], status["rate_limited"]) == (7, 2)
    assert status["dropped_events_total"] == 9


def test_metrics_as_json(client):
    found = client.get("/metrics")
    assert found["events_total"] == 5
    assert found["alerts_emitted"] == 1
    assert found["alerts_active"] == 1
    # Of init nobody knows the parent.
    assert (found["lineage_hits"], found["lineage_misses"]) == (4, 1)
    assert found["perf_poll_errors"] == 0
    names = {each["name"] for each in found["plugins"]}
    assert {"linnix_processes", "http_subscribers"} <= names


# --- what others serve ------------------------------------------------------------------


class Pages:
    """Offers a page, and one that fails."""

    @hookimpl
    def linnix_http(self):
        return [Mount("/hello", self.hello, "Hello"), Mount("/broken", self.broken)]

    @staticmethod
    async def hello(scope, receive, send):
        body = f"{scope['root_path']} {scope['path']} {sorted(scope['linnix_scopes'])}".encode()
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    @staticmethod
    async def broken(scope, receive, send):
        raise RuntimeError("secret of the plugin")


def test_mounts_of_other_plugins_are_served(serve):
    _, client = serve(handlers={"pages": Pages})
    assert client.get("/mounts") == [
        {"path": "/hello", "title": "Hello"},
        {"path": "/broken", "title": ""},
    ]
    for path, seen in (("/hello", "/hello/"), ("/hello/x/y", "/hello/x/y")):
        status, headers, body = client.request("GET", path)
        assert (status, body.decode()) == (200, f"/hello {seen} ['act', 'read']")
        assert "content-security-policy" in headers
    assert client.request("POST", "/hello", {})[0] == 200
    assert client.refused("/hellooo")[0] == 404


def test_a_mount_that_fails_tells_no_secrets(serve, caplog):
    _, client = serve(handlers={"pages": Pages})
    assert client.refused("/broken") == (500, "something went wrong here")
    assert "GET /broken failed" in caplog.text


def test_what_a_plugin_would_answer_names_the_plugin(client):
    for path in ("/metrics/prometheus", "/attribution"):
        status, said = client.refused(path)
        assert status == 404
        assert "linnix-plugin-" in said


def test_an_unknown_path_and_an_unknown_method(client):
    assert client.refused("/nosuch")[0] == 404
    status, headers, _ = client.request("DELETE", "/processes")
    assert (status, headers["allow"]) == (405, "GET, HEAD")
    status, headers, body = client.request("HEAD", "/processes")
    assert (status, body) == (200, b"")


class Greedy:
    """Would like to be where no token is needed."""

    @hookimpl
    def linnix_http(self):
        return [Mount("/assets/mine", Pages.hello), Mount("/dashboard", Pages.hello)]


def test_no_plugin_is_where_no_token_is_needed(serve):
    _, client = serve(handlers={"greedy": Greedy}, http={"dashboard": False})
    for path in ("/assets/mine", "/assets/mine/x", "/dashboard"):
        assert client.refused(path)[0] == 404, path


class Blind:
    """A collector that cannot see here what it would see elsewhere."""

    @hookimpl
    def linnix_start(self):
        raise PluginUnavailable("needs CAP_BPF")

    @hookimpl
    def linnix_poll(self):
        return []


def test_it_says_why_the_kernel_is_not_seen(serve):
    _, client = serve(polled(), collectors={"ebpf": Blind})
    status, _, body = client.request("GET", "/readyz")
    assert status == 503
    assert "collectors.ebpf is unavailable: needs CAP_BPF" in json.loads(body)["reason"]
    assert client.get("/healthz")["transport"] == "userspace"
