"""The reasoner, and the download of a model that is missing."""

import time

import attrs
import pytest

from linnix_core import Deployment, IncidentProcess, LinnixError, PluginUnavailable, Secret
from linnix_core.testing.records import reason_request
from linnix_plugin_ollama import ModelMissing, OllamaConfig, Progress, pull

PATIENCE_S = 60.0


def request():
    return reason_request("fork_storm", timeout_s=PATIENCE_S)


def probed(reasoner):
    """What the health is once the canary has come back."""
    reasoner.linnix_health()
    reasoner._probing.join(PATIENCE_S)
    assert not reasoner._probing.is_alive()
    return reasoner.linnix_health()


def test_the_model_chooses(ollama, make_reasoner):
    answer = make_reasoner().linnix_reason(request())
    assert (answer.class_, answer.confidence, answer.process) == ("fork_storm", 70, "P1")
    assert answer.sentence is None


def test_every_key_has_its_effect(ollama, make_reasoner):
    reasoner = make_reasoner(
        num_ctx=9000,
        keep_alive=0.0,
        max_tokens=99,
        temperature=1.0,
        options={"seed": 7},
        sentence=True,
        arguments=True,
        api_key=Secret("k1"),
    )
    asked = request()
    process = IncidentProcess(asked.processes[0].key, "subject", args=("--quite-secret",))
    incident = attrs.evolve(asked.incident, tree=(process,))
    assert reasoner.linnix_reason(attrs.evolve(asked, incident=incident)).sentence
    path, headers, body = ollama.requests[0]
    assert path == "/api/chat"
    assert headers["authorization"] == "Bearer k1"
    assert body["keep_alive"] == 0
    assert body["options"] == {
        "num_ctx": 9000, "num_predict": 99, "temperature": 1.0, "seed": 7,
    }  # fmt: skip
    assert "sentence" in body["format"]["properties"]
    assert "--quite-secret" in str(body["messages"])


def test_nothing_more_is_sent_than_was_asked_for(ollama, make_reasoner):
    asked = request()
    process = IncidentProcess(asked.processes[0].key, "subject", args=("--quite-secret",))
    incident = attrs.evolve(asked.incident, tree=(process,))
    make_reasoner().linnix_reason(attrs.evolve(asked, incident=incident))
    _, headers, body = ollama.requests[0]
    assert "--quite-secret" not in str(body)
    assert "sentence" not in body["format"]["properties"]
    assert "authorization" not in headers


def test_a_proxy_that_is_named_is_used(ollama, make_reasoner):
    reasoner = make_reasoner(
        host="http://far.invalid:11434", plain_http=True, proxy=Secret(ollama.url)
    )
    with pytest.raises(LinnixError):
        reasoner.linnix_reason(request())
    assert ollama.requests[0][0] == "http://far.invalid:11434/api/chat"


def test_a_prompt_that_does_not_fit_is_shortened(ollama, make_reasoner):
    def chat(handler, body):
        if len(ollama.chats) == 1:
            handler.send({"error": "prompt too long; exceeded max context length"}, 400)
        else:
            ollama.obey(handler, body)

    ollama.chat = chat
    assert make_reasoner().linnix_reason(request()) is not None
    long, short = (len(body["messages"][1]["content"]) for body in ollama.chats)
    assert short < long


def test_a_turn_is_as_long_as_the_configuration_says(ollama, make_reasoner):
    ollama.chat = lambda handler, body: ollama.over.wait()
    with pytest.raises(LinnixError, match="has not answered within"):
        make_reasoner(timeout=0.5).linnix_reason(request())


def test_the_environment_names_host_and_model(ollama, make_reasoner, monkeypatch):
    monkeypatch.setenv("OLLAMA_HOST", ollama.url.removeprefix("http://"))
    monkeypatch.setenv("LLM_MODEL", "small:latest")
    assert make_reasoner(host=None, model=None).linnix_reason(request()) is not None
    assert ollama.chats[0]["model"] == "small:latest"


def test_a_deployment_is_looked_up_at_every_turn(ollama, linnix_context, make_reasoner):
    deployments = {}
    context = linnix_context("reasoners.ollama", deployment=deployments.get)
    reasoner = make_reasoner(context, deployment="mine")
    reasoner.linnix_start()
    with pytest.raises(LinnixError, match="nothing is deployed as 'mine'"):
        reasoner.linnix_reason(request())
    for endpoint in (ollama.url, f"{ollama.url}/v1"):
        deployments["mine"] = Deployment("mine", "ollama", "small", endpoint)
        assert reasoner.linnix_reason(request()) is not None


def test_health_says_what_is_enforced(ollama, make_reasoner):
    reasoner = make_reasoner()
    reasoner.linnix_start()
    assert not ollama.requests  # starting asks nobody
    health = probed(reasoner)
    assert health.status == "ok"
    assert health.limits == ("structured: enforced (format with schema)",)


def test_a_dead_server_shows(dead_url, make_reasoner):
    health = probed(make_reasoner(host=dead_url))
    assert health.status == "degraded"
    assert "does not answer" in health.reason


def test_without_a_model_it_is_unavailable(make_reasoner):
    with pytest.raises(PluginUnavailable, match="no model is named") as unavailable:
        make_reasoner(model=None).linnix_start()
    assert "ollama list" in unavailable.value.hint


def test_an_authority_that_is_none_is_said_at_the_start(make_reasoner, tmp_path):
    with pytest.raises(PluginUnavailable, match=r"ca_file .* cannot be used"):
        make_reasoner(ca_file=tmp_path / "missing.pem").linnix_start()


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"host": "10.1.2.3"}, "host would send what this host does"),
        ({"host": "localhost", "deployment": "x"}, "leave host out"),
        ({"num_ctx": 0}, "'num_ctx' must be > 0"),
        ({"timeout": 0.0}, "'timeout' must be > 0"),
        ({"temperature": -1.0}, "'temperature' must be >= 0"),
    ],
)
def test_a_mistake_in_the_configuration_names_its_key(keys, said):
    with pytest.raises(ValueError, match=said):
        OllamaConfig(**keys)
    assert OllamaConfig(host="10.1.2.3", plain_http=True).host


def test_what_it_cost_is_counted(ollama, make_reasoner):
    reasoner = make_reasoner()
    reasoner.linnix_reason(request())
    found = {(m.name, *m.labels.values()): m.value for m in reasoner.linnix_metrics()}
    assert found["linnix_llm_requests", "answered"] == 1
    assert found["linnix_llm_tokens", "input"] == 26


# --- a model that is missing ----------------------------------------------------------


def test_a_download_tells_how_far_it_is(ollama):
    ollama.pulls.set()
    told = list(pull(ollama.url, "large", timeout_s=PATIENCE_S))
    assert Progress("pulling 74701a8c35f6", 840_000, 2_000_000) in told
    assert [str(progress) for progress in told] == [
        "pulling manifest",
        "pulling 74701a8c35f6: 0 %",
        "pulling 74701a8c35f6: 42 %",
        "verifying sha256 digest",
        "writing manifest",
        "success",
    ]
    assert "large:latest" in ollama.models


def test_a_download_that_fails_within_a_success_fails(ollama):
    with pytest.raises(LinnixError, match="file does not exist"):
        list(pull(ollama.url, "nobody-made-it", timeout_s=PATIENCE_S))


@pytest.mark.parametrize("text", ["<html>", "[]", '{"status": "pulling manifest"}\n'])
def test_a_download_that_ends_half_way_fails(ollama, text):
    ollama.pull = lambda handler, body: handler.send(text)
    with pytest.raises(LinnixError, match=r"half way|is no Ollama server"):
        list(pull(ollama.url, "large", timeout_s=PATIENCE_S))


def test_a_missing_model_is_downloaded_where_that_is_wanted(ollama, make_reasoner):
    reasoner = make_reasoner(model="large", pull=True)
    with pytest.raises(ModelMissing):
        reasoner.linnix_reason(request())
    with pytest.raises(ModelMissing):
        reasoner.linnix_reason(request())  # which begins no second download
    ollama.pulls.set()
    reasoner._pulling.join(PATIENCE_S)
    assert reasoner.linnix_reason(request()) is not None
    assert [path for path, _, _ in ollama.requests].count("/api/pull") == 1
    assert probed(reasoner).limits == ("structured: enforced (format with schema)",)


def test_a_missing_model_is_not_downloaded_unasked(ollama, make_reasoner):
    with pytest.raises(ModelMissing):
        make_reasoner(model="large").linnix_reason(request())
    assert [path for path, _, _ in ollama.requests] == ["/api/chat"]


def test_health_shows_a_download_that_failed(ollama, make_reasoner):
    reasoner = make_reasoner(model="nobody-made-it", pull=True)
    with pytest.raises(ModelMissing):
        reasoner.linnix_reason(request())
    reasoner._pulling.join(PATIENCE_S)
    assert any("failed" in limit for limit in reasoner.linnix_health().limits)


def test_a_download_ends_with_the_run(ollama, make_reasoner):
    reasoner = make_reasoner(model="large", pull=True)
    with pytest.raises(ModelMissing):
        reasoner.linnix_reason(request())
    reasoner.linnix_stop(deadline=time.monotonic() + PATIENCE_S)
    assert not reasoner._pulling.is_alive()
