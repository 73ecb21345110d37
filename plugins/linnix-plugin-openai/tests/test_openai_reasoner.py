"""The reasoner: where it asks, what it shows of itself, and what bad servers cost a run."""

import json
import queue
import time

import attrs
import pytest

from linnix_core import (
    Alert,
    Answer,
    BadAnswer,
    Deployment,
    Evidence,
    IncidentProcess,
    LinnixError,
    PluginUnavailable,
    Secret,
    Subject,
    hookimpl,
)
from linnix_core.testing.records import reason_request
from linnix_plugin_openai import OpenAIConfig, OpenAIReasoner

PATIENCE_S = 60.0
ANSWER = {"class": "cpu_spin", "confidence": 83, "process": "P1", "facts": ["f1"], "actions": []}


def request(class_="cpu_spin", **parts):
    return reason_request(class_, timeout_s=PATIENCE_S, **parts)


def saying(stand_in, *texts):
    """Reply with one text after the other, the last one again and again."""

    def answer(handler, body):
        handler.send(stand_in.reply(texts[min(len(stand_in.bodies), len(texts)) - 1]))

    stand_in.answer = answer


def probed(reasoner):
    """What the health is once the canary has come back."""
    reasoner.linnix_health()
    reasoner._probing.join(PATIENCE_S)
    assert not reasoner._probing.is_alive()
    return reasoner.linnix_health()


# --- answers --------------------------------------------------------------------------


def test_the_answer_is_what_the_model_chose(stand_in, make_reasoner):
    saying(stand_in, f"Sure!\n```json\n{json.dumps(ANSWER)}\n```")
    answer = make_reasoner(endpoint=stand_in.url).linnix_reason(request())
    assert (answer.class_, answer.confidence, answer.process) == ("cpu_spin", 83, "P1")
    assert answer.facts == ("f1",)


def test_what_is_no_answer_is_sent_back_once(stand_in, make_reasoner):
    saying(stand_in, "I think it is fine.", json.dumps(ANSWER))
    reasoner = make_reasoner(endpoint=stand_in.url)
    assert reasoner.linnix_reason(request()).class_ == "cpu_spin"
    assert "no valid answer" in stand_in.bodies[1]["messages"][-1]["content"]
    found = {metric.name: metric.value for metric in reasoner.linnix_metrics()}
    assert found["linnix_llm_repairs"] == 1


def test_what_is_still_no_answer_is_an_error_and_shows(stand_in, make_reasoner):
    saying(stand_in, '{"class": "all is well"}')
    reasoner = make_reasoner(endpoint=stand_in.url)
    with pytest.raises(BadAnswer):
        reasoner.linnix_reason(request())
    assert len(stand_in.bodies) == 2
    assert reasoner.linnix_health().status == "degraded"


def test_nothing_is_asked_about_nothing(stand_in, make_reasoner):
    bare = attrs.evolve(request(), facts=())
    assert make_reasoner(endpoint=stand_in.url).linnix_reason(bare) is None
    assert not stand_in.requests


def test_a_prompt_that_does_not_fit_is_shortened(stand_in, make_reasoner):
    def answer(handler, body):
        if len(stand_in.bodies) == 1:
            handler.send({"error": {"message": "exceeds the available context size"}}, 400)
        else:
            stand_in.obey(handler, body)

    stand_in.answer = answer
    asked = request()
    assert len(asked.facts) > 16
    assert make_reasoner(endpoint=stand_in.url, model="m").linnix_reason(asked) is not None
    long, short = (body["messages"][1]["content"] for body in stand_in.bodies)
    assert f"{asked.facts[-1].id} " in long
    assert f"{asked.facts[-1].id} " not in short


def test_a_sentence_is_asked_for_where_it_is_wanted(stand_in, make_reasoner):
    for wanted in (False, True):
        answer = make_reasoner(endpoint=stand_in.url, sentence=wanted).linnix_reason(request())
        assert (answer.sentence is not None) is wanted
        assert ("sentence" in stand_in.schema_of(stand_in.bodies[-1])["properties"]) is wanted


def test_names_are_shown_where_somebody_asked_for_it(stand_in, make_reasoner):
    for wanted in (False, True):
        make_reasoner(endpoint=stand_in.url, names=wanted).linnix_reason(request())
        assert ("  java  " in stand_in.bodies[-1]["messages"][1]["content"]) is wanted


def test_arguments_are_shown_where_somebody_asked_for_it(stand_in, make_reasoner):
    asked = request()
    key = asked.processes[0].key
    process = IncidentProcess(key=key, relation="subject", args=("--quite-secret",))
    incident = attrs.evolve(asked.incident, tree=(process,))
    for wanted in (False, True):
        reasoner = make_reasoner(endpoint=stand_in.url, arguments=wanted)
        reasoner.linnix_reason(attrs.evolve(asked, incident=incident))
        assert ("--quite-secret" in json.dumps(stand_in.bodies[-1])) is wanted


def test_a_turn_is_as_long_as_the_configuration_says(stand_in, make_reasoner):
    stand_in.answer = lambda handler, body: stand_in.over.wait()
    reasoner = make_reasoner(endpoint=stand_in.url, model="m", timeout=0.5)
    with pytest.raises(LinnixError, match="has not answered within"):
        reasoner.linnix_reason(request())


def test_a_server_that_wants_rest_is_not_asked(stand_in, make_reasoner):
    stand_in.answer = lambda handler, body: handler.send({}, 429, retry_after="3600")
    reasoner = make_reasoner(endpoint=stand_in.url, model="m")
    with pytest.raises(LinnixError, match="429"):
        reasoner.linnix_reason(request())
    assert reasoner.linnix_reason(request()) is None
    assert len(stand_in.bodies) == 1
    assert "asked again in" in reasoner.linnix_health().reason


# --- where it asks --------------------------------------------------------------------


def test_the_environment_names_endpoint_model_and_key(stand_in, make_reasoner, monkeypatch):
    monkeypatch.setenv("LLM_ENDPOINT", stand_in.url)
    monkeypatch.setenv("LLM_MODEL", "from-the-environment")
    monkeypatch.setenv("OPENAI_API_KEY", "k-env")
    make_reasoner().linnix_reason(request())
    assert stand_in.bodies[0]["model"] == "from-the-environment"
    assert stand_in.headers[0]["authorization"] == "Bearer k-env"


def test_the_configuration_comes_before_the_environment(
    stand_in, dead_url, make_reasoner, monkeypatch
):
    monkeypatch.setenv("LLM_ENDPOINT", dead_url)
    monkeypatch.setenv("LLM_MODEL", "no")
    monkeypatch.setenv("OPENAI_API_KEY", "no")
    make_reasoner(endpoint=stand_in.url, model="yes", api_key=Secret("k")).linnix_reason(request())
    assert stand_in.bodies[0]["model"] == "yes"
    assert stand_in.headers[0]["authorization"] == "Bearer k"


def test_nobody_gets_the_key_of_the_environment_by_default(make_reasoner, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k-env")
    chat = make_reasoner().connected()
    assert chat.url == "http://localhost:8090/v1/chat/completions"
    assert "authorization" not in chat._exchange._http.headers


def test_a_deployment_gets_no_key_of_the_environment(
    stand_in, linnix_context, make_reasoner, monkeypatch
):
    monkeypatch.setenv("LLM_ENDPOINT", "https://far.example.com")
    monkeypatch.setenv("LLM_MODEL", "another")
    monkeypatch.setenv("OPENAI_API_KEY", "k-env")
    served = {"small": Deployment("small", "llama-cpp", "tiny", stand_in.url)}
    context = linnix_context("reasoners.openai", deployment=served.get)
    make_reasoner(context, deployment="small").linnix_reason(request())
    assert "authorization" not in stand_in.headers[0]
    assert stand_in.bodies[0]["model"] == "tiny"


def test_a_deployment_is_looked_up_at_every_turn(stand_in, linnix_context, make_reasoner):
    deployments = {}
    context = linnix_context("reasoners.openai", deployment=deployments.get)
    reasoner = make_reasoner(context, deployment="small")
    reasoner.linnix_start()
    with pytest.raises(LinnixError, match="nothing is deployed as 'small'"):
        reasoner.linnix_reason(request())
    deployments["small"] = Deployment("small", "llama-cpp", "tiny-q4", stand_in.url)
    assert reasoner.linnix_reason(request()) is not None
    deployments["small"] = attrs.evolve(deployments["small"], model="tiny-q8")
    assert reasoner.linnix_reason(request()) is not None
    assert [body["model"] for body in stand_in.bodies] == ["tiny-q4", "tiny-q8"]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"endpoint": "http://10.1.2.3/v1"}, "endpoint would send what this host does"),
        ({"endpoint": "https://a:b@example.com"}, "endpoint must hold no user"),
        ({"endpoint": "http://localhost", "deployment": "x"}, "leave one of the two out"),
        ({"max_tokens": 0}, "'max_tokens' must be > 0"),
        ({"timeout": 0.0}, "'timeout' must be > 0"),
        ({"temperature": -1.0}, "'temperature' must be >= 0"),
        ({"price_input": -1.0}, "'price_input' must be >= 0"),
        ({"extra": {"messages": []}}, "extra cannot hold messages"),
    ],
)
def test_a_mistake_in_the_configuration_names_its_key(keys, said):
    with pytest.raises(ValueError, match=said):
        OpenAIConfig(**keys)


def test_plain_http_may_be_allowed():
    assert OpenAIConfig(endpoint="http://10.1.2.3/v1", plain_http=True).endpoint


@pytest.mark.parametrize(
    ("keys", "environment", "said"),
    [
        ({"api_key": Secret("two words")}, {}, "api_key holds characters"),
        ({"proxy": Secret("no-proxy-at-all")}, {}, "proxy cannot be used"),
        ({}, {"LLM_ENDPOINT": "http://far.example.com"}, "endpoint would send"),
    ],
)
def test_what_cannot_be_used_is_said_at_the_start(
    make_reasoner, monkeypatch, keys, environment, said
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(PluginUnavailable, match=said):
        make_reasoner(**keys).linnix_start()


def test_a_private_authority_is_for_this_server(tls_stand_in, make_reasoner):
    keys = {"endpoint": tls_stand_in.url, "ca_file": tls_stand_in.ca_file, "model": "m"}
    assert make_reasoner(**keys).linnix_reason(request()) is not None


# --- health ---------------------------------------------------------------------------


def test_health_says_what_is_enforced(stand_in, make_reasoner):
    reasoner = make_reasoner(endpoint=stand_in.url)
    reasoner.linnix_start()
    assert not stand_in.requests  # starting asks nobody
    assert reasoner.linnix_health().limits == ("structured: not known yet",)
    health = probed(reasoner)
    assert health.status == "ok"
    assert health.limits == ("structured: enforced (json_schema)",)
    stand_in.requests.clear()
    assert probed(reasoner) == health
    assert not stand_in.requests  # what is known is not asked again


def test_a_dead_server_shows_and_comes_back(dead_url, stand_in, linnix_context, make_reasoner):
    served = {"small": Deployment("small", "llama-cpp", "m", dead_url)}
    context = linnix_context("reasoners.openai", deployment=served.get)
    reasoner = make_reasoner(context, deployment="small")
    health = probed(reasoner)
    assert health.status == "degraded"
    assert "does not answer" in health.reason
    served["small"] = attrs.evolve(served["small"], endpoint=stand_in.url)
    assert reasoner.linnix_reason(request()) is not None
    assert probed(reasoner).status == "ok"


def test_a_server_that_hangs_is_not_asked_at_every_look(stand_in, make_reasoner):
    stand_in.answer = lambda handler, body: stand_in.over.wait()
    reasoner = make_reasoner(endpoint=stand_in.url)
    for _ in range(20):
        assert reasoner.linnix_health().limits == ("structured: not known yet",)
    reasoner.linnix_stop(deadline=time.monotonic() + PATIENCE_S)
    assert not reasoner._probing.is_alive()
    assert len(stand_in.bodies) <= 1


# --- in a run -------------------------------------------------------------------------


class Keeper:
    """A handler that hears the insights."""

    def __init__(self):
        self.insights = queue.SimpleQueue()

    @hookimpl
    def linnix_insight(self, insight):
        self.insights.put(insight)


class Last:
    """The reasoner that is asked last."""

    @hookimpl
    def linnix_reason(self, request):
        return Answer("cpu_spin", 60, "P1", ("f1",), ("a1",))


def explained(linnix_runtime, linnix_records, endpoint):
    keeper = Keeper()
    agent = linnix_runtime(
        handlers={"keeper": keeper},
        reasoners={"openai": OpenAIReasoner, "last": Last()},
        options={"reasoners.openai": {"endpoint": endpoint, "model": "m", "timeout": "1s"}},
        agent={"reason_timeout_s": 20.0},
        records=linnix_records(400),
    )
    assert agent.wait_idle(PATIENCE_S)
    process = next(p for p in agent.processes.view if p.sample is not None)
    agent.submit(
        Alert(
            "spin",
            "medium",
            "it spins",
            "cpu_spin",
            Subject(process.key, process.exe, process.comm, process.cgroup),
            (Evidence("cpu", 99, "%"), Evidence("threshold", 70, "%")),
            ts_ns=time.time_ns(),
        )
    )
    return keeper.insights.get(timeout=PATIENCE_S)


def test_an_incident_is_explained_by_the_model(linnix_runtime, linnix_records, stand_in):
    insight = explained(linnix_runtime, linnix_records, stand_in.url)
    assert insight.reasoner == "openai"
    assert insight.grounded


def chatty(stand_in, handler, body):
    handler.send(stand_in.reply("Well, " * 100_000))


def lying(stand_in, handler, body):
    made_up = {**ANSWER, "process": "P99", "facts": ["f999"]}
    handler.send(stand_in.reply(json.dumps(made_up)))


def hanging(stand_in, handler, body):
    stand_in.over.wait()


def breaking(stand_in, handler, body):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{")
    handler.close_connection = True


@pytest.mark.parametrize("behave", [chatty, lying, hanging, breaking, None])
def test_a_bad_server_costs_its_own_turn_and_no_more(
    linnix_runtime, linnix_records, stand_in, dead_url, behave
):
    if behave is not None:
        stand_in.answer = lambda handler, body: behave(stand_in, handler, body)
    endpoint = dead_url if behave is None else stand_in.url
    assert explained(linnix_runtime, linnix_records, endpoint).reasoner == "last"
