"""Checkpoints and adapters are served by vLLM, here or where it runs already."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from linnix_core import ConfigError, Health, LinnixError, Secret
from linnix_core.testing.records import reason_request
from linnix_core.testing.waiting import eventually
from linnix_plugin_openai import OpenAIConfig, OpenAIReasoner
from linnix_plugin_vllm import VllmDeployer, VllmDeployerConfig


def arguments_of(deployer, name="oracle"):
    return list(deployer.servers.find(name).launch.command)


def after(words, option):
    return words[words.index(option) + 1]


# --- here -----------------------------------------------------------------------------


def test_a_checkpoint_is_served_and_answers_as_it_must(make, spec, checkpoint):
    deployer = make(api_key=Secret("k1"))
    made = deployer.linnix_deploy(spec(digest="sha256:1"))
    assert (made.name, made.deployer, made.model) == ("oracle", "vllm", "oracle")
    assert made.digest == "sha256:1"
    assert made.details["model_id"] == "m1"
    health = deployer.linnix_probe(made)
    assert (health.status, health.limits) == ("ok", ("structured: enforced (json_schema)",))
    assert deployer.linnix_deployments() == [made]
    words = arguments_of(deployer)
    assert words[1:3] == ["-m", "vllm.entrypoints.openai.api_server"]
    assert after(words, "--model") == str(checkpoint)
    assert after(words, "--dtype") == "auto"
    assert "--max-model-len" not in words
    assert "k1" not in words
    other = make(api_key=Secret("k2"))
    assert other.linnix_probe(made).reason == "the server wants another api_key"
    deployer.linnix_undeploy(made)
    deployer.linnix_undeploy(made)
    assert deployer.linnix_deployments() == []


def test_the_agent_reasons_with_it(make, spec, linnix_context):
    made = make(api_key=Secret("k1")).linnix_deploy(spec())
    context = linnix_context("reasoners.openai", deployment={"oracle": made}.get)
    reasoner = OpenAIReasoner(OpenAIConfig(deployment="oracle", api_key=Secret("k1")), context)
    request = reason_request("fork_storm")
    assert reasoner.linnix_reason(request).class_ in request.classes
    reasoner.linnix_stop(time.monotonic() + 5)


def test_the_keys_become_arguments(make, spec):
    deployer = make(context=2048, dtype="bfloat16", arguments=("--max-num-seqs", "4"))
    deployer.linnix_deploy(spec())
    words = arguments_of(deployer)
    assert after(words, "--max-model-len") == "2048"
    assert after(words, "--dtype") == "bfloat16"
    assert words[-2:] == ["--max-num-seqs", "4"]
    # Of one model, before the configuration.
    deployer.linnix_deploy(spec(context=1024))
    assert after(arguments_of(deployer), "--max-model-len") == "1024"


def test_who_is_replaced_while_it_waits_is_told(make, spec, monkeypatch):
    deployer, other = make(), make()
    asked = deployer.asked

    def replaced(*arguments):
        other.linnix_deploy(spec(context=512))
        return asked(*arguments)

    monkeypatch.setattr(deployer, "asked", replaced)
    with pytest.raises(LinnixError, match="oracle was stopped or replaced meanwhile"):
        deployer.linnix_deploy(spec())
    # And has not ended the other one.
    assert after(arguments_of(other), "--max-model-len") == "512"
    assert other.servers.find("oracle").runs


def test_who_joins_a_busy_server_does_not_end_it(make, spec):
    deployer = make()
    made = deployer.linnix_deploy(spec())
    process = deployer.servers.find("oracle").process
    process.send(signal.SIGSTOP)
    with pytest.raises(LinnixError, match=r"did not come up for oracle: within 0\.3 s"):
        make(start_timeout=0.3).linnix_deploy(spec())
    process.send(signal.SIGCONT)
    assert deployer.servers.find("oracle").process == process
    assert deployer.linnix_probe(made).status == "ok"


def test_nothing_is_downloaded_unless_that_is_wanted(make, spec):
    deployer = make(environment={"HF_HUB_OFFLINE": "0"})
    deployer.linnix_deploy(spec())
    told = deployer.servers.find("oracle").launch.environment
    assert (told["HF_HUB_OFFLINE"], told["TRANSFORMERS_OFFLINE"]) == ("0", "1")


def test_adapters_are_served_beside_the_model(make, spec, adapter):
    deployer = make()
    made = deployer.linnix_deploy(spec(lora={"asm": str(adapter)}))
    words = arguments_of(deployer)
    assert words[words.index("--enable-lora") :] == [
        "--enable-lora", "--lora-modules", f"asm={adapter}",
    ]  # fmt: skip
    assert deployer.has(made)


def test_an_adapter_is_served_with_the_model_that_it_is_for(make, spec, adapter, checkpoint):
    deployer = make()
    made = deployer.linnix_deploy(spec("asm", path=adapter))
    assert made.model == "asm"
    assert deployer.linnix_probe(made).status == "ok"
    words = arguments_of(deployer, "asm")
    assert after(words, "--model") == str(checkpoint)
    assert after(words, "--served-model-name") == "asm-base"
    (adapter / "adapter_config.json").write_text("{}")
    with pytest.raises(LinnixError, match="does not say for which model") as told:
        deployer.linnix_deploy(spec("asm", path=adapter))
    assert "base=FOLDER" in told.value.hint
    assert deployer.linnix_deploy(spec("asm", path=adapter, base=str(checkpoint))).model == "asm"
    (adapter / "adapter_config.json").write_text("[")
    with pytest.raises(LinnixError, match=r"adapter_config\.json cannot be read"):
        deployer.linnix_deploy(spec("asm", path=adapter))


def test_vllm_serve_is_taken_where_nothing_can_be_imported(
    make, spec, vllm, tmp_path, monkeypatch, checkpoint
):
    program = tmp_path / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\nimport runpy, sys\nsys.path.insert(0, {str(vllm)!r})\n"
        "runpy.run_module('vllm.entrypoints.openai.api_server', run_name='__main__')\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    deployer = make(python=None)
    made = deployer.linnix_deploy(spec())
    assert arguments_of(deployer)[:3] == [str(program), "serve", str(checkpoint)]
    assert deployer.linnix_probe(made).status == "ok"
    program.unlink()
    with pytest.raises(LinnixError, match="vLLM is not here") as told:
        make(python=None).linnix_deploy(spec("second"))
    assert "set url to a server that runs" in told.value.hint
    with pytest.raises(LinnixError, match="there is no program /nonexistent"):
        make(python=Path("/nonexistent")).linnix_deploy(spec("second"))


def test_what_cannot_be_served_is_told(make, spec, checkpoint, tmp_path):
    deployer = make()
    assert deployer.linnix_deploy(spec(form="gguf")) is None
    with pytest.raises(LinnixError, match="vLLM serves the folder of a checkpoint"):
        deployer.linnix_deploy(spec(path=checkpoint / "model.safetensors"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(LinnixError, match=r"has no config\.json"):
        deployer.linnix_deploy(spec(path=tmp_path / "empty"))
    with pytest.raises(LinnixError, match="No adapter found for /nonexistent") as told:
        deployer.linnix_deploy(spec(lora={"asm": "/nonexistent"}))
    assert str(told.value).startswith("vLLM did not come up for oracle: ended with exit code 1: ")
    with pytest.raises(ConfigError, match="lora"):
        deployer.linnix_deploy(spec(lora="asm"))
    assert deployer.linnix_deployments() == []


def test_a_model_that_takes_too_long_is_given_up(make, spec):
    deployer = make(start_timeout=0.5, environment={"LOADING_S": "60"})
    with pytest.raises(LinnixError, match=r"within 0\.5 s: .* does not answer"):
        deployer.linnix_deploy(spec())
    assert deployer.servers.list() == []
    assert VllmDeployerConfig().start_timeout == 540.0


def test_a_server_that_passes_over_schemas_is_degraded(make, spec):
    deployer = make(environment={"SCHEMAS": "none"})
    made = deployer.linnix_deploy(spec())
    health = deployer.linnix_probe(made)
    assert health.status == "degraded"
    assert "not in the form that was asked for" in health.reason


def test_files_that_changed_under_a_server_are_told(make, spec, checkpoint):
    deployer = make()
    made = deployer.linnix_deploy(spec())
    (checkpoint / "model.safetensors").write_bytes(b"other weights")
    assert "is not what was deployed any more" in deployer.linnix_probe(made).reason


# --- where it runs already ------------------------------------------------------------


@pytest.fixture
def running(make, spec):
    """A server that somebody else looks after."""
    return make(api_key=Secret("k1")).linnix_deploy(spec("theirs"))


def test_a_server_that_runs_is_used_and_left_running(make, spec, running, linnix_context):
    config = VllmDeployerConfig(url=running.endpoint, api_key=Secret("k1"))
    deployer = VllmDeployer(config, linnix_context("deployers.elsewhere"))
    made = deployer.linnix_deploy(spec(model="theirs", digest="sha256:1"))
    assert (made.name, made.model, made.endpoint) == ("oracle", "theirs", running.endpoint)
    assert made.digest is None  # nobody can look at it
    assert deployer.linnix_deploy(spec(model="theirs")).created_ns == made.created_ns
    assert deployer.linnix_probe(made).status == "ok"
    assert deployer.linnix_deployments() == [made]
    deployer.linnix_undeploy(made)
    assert deployer.linnix_deployments() == []
    assert deployer.linnix_probe(made).status == "failed"
    assert make(api_key=Secret("k1")).linnix_probe(running).status == "ok"


def test_an_address_without_v1_and_any_format_will_do(spec, running, linnix_context):
    url = running.endpoint.removesuffix("/v1")
    config = VllmDeployerConfig(api_key=Secret("k1"))
    deployer = VllmDeployer(config, linnix_context("deployers.elsewhere"))
    made = deployer.linnix_deploy(spec("theirs", form="gguf", url=url))
    assert made.endpoint == running.endpoint


def test_what_the_server_does_not_have_is_not_deployed(spec, running, linnix_context):
    config = VllmDeployerConfig(url=running.endpoint, api_key=Secret("k1"))
    deployer = VllmDeployer(config, linnix_context("deployers.elsewhere"))
    with pytest.raises(LinnixError, match="the server has theirs, and not oracle"):
        deployer.linnix_deploy(spec())
    with pytest.raises(LinnixError, match="wants another api_key"):
        VllmDeployer(
            VllmDeployerConfig(url=running.endpoint), linnix_context("deployers.keyless")
        ).linnix_deploy(spec("theirs"))
    assert deployer.linnix_deployments() == []


def test_a_server_that_went_away_is_not_listed(make, spec, running, linnix_context):
    config = VllmDeployerConfig(url=running.endpoint, api_key=Secret("k1"), probe_timeout=5.0)
    deployer = VllmDeployer(config, linnix_context("deployers.elsewhere"))
    made = deployer.linnix_deploy(spec("theirs"))
    make().linnix_undeploy(running)
    assert deployer.linnix_deployments() == []
    health = deployer.linnix_probe(made)
    assert (health.status, "does not answer" in health.reason) == ("failed", True)


def test_an_address_in_clear_text_has_to_be_allowed(spec, linnix_context, monkeypatch):
    keys = {"url": "http://192.0.2.1:8000/v1/"}
    deployer = VllmDeployer(VllmDeployerConfig(**keys), linnix_context("deployers.plain"))
    with pytest.raises(LinnixError, match=r"url would send what this host does to .* clear text"):
        deployer.linnix_deploy(spec())
    monkeypatch.setattr(VllmDeployer, "asked", lambda *_: Health("ok", "was not asked"))
    config = VllmDeployerConfig(**keys, plain_http=True)
    deployer = VllmDeployer(config, linnix_context("deployers.plain"))
    assert deployer.linnix_deploy(spec()).endpoint == "http://192.0.2.1:8000/v1"


# --- the stand-in itself --------------------------------------------------------------


def test_the_stand_in_answers_as_vllm_was_seen_to(make, spec):
    from linnix_plugin_openai import Exchange

    made = make(api_key=Secret("k1")).linnix_deploy(spec())
    with_key, without = (Exchange(made.endpoint, api_key=key) for key in ("k1", ""))
    asked = {"model": "oracle", "messages": [{"role": "user", "content": "Name a colour."}]}
    chat = f"{made.endpoint}/chat/completions"
    assert without.get(made.endpoint.removesuffix("/v1") + "/health", 5).status == 200
    assert without.post(chat, asked, 5).status == 401
    unknown = with_key.post(chat, {**asked, "model": "x"}, 5)
    assert (unknown.status, unknown.words) == (404, "The model `x` does not exist.")
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    for form, fits in (
        ({"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}, True),
        ({"type": "json_object", "schema": schema}, False),
    ):
        answer = with_key.post(chat, {**asked, "response_format": form}, 5)
        said = json.loads(answer.document["choices"][0]["message"]["content"])
        assert ("a" in said) is fits
    for exchange in (with_key, without):
        exchange.close()


def test_what_ends_is_started_again(make, spec):
    deployer = make()
    made = deployer.linnix_deploy(spec())
    os.kill(deployer.servers.find("oracle").process.pid, signal.SIGTERM)
    health = eventually(
        lambda: deployer.linnix_probe(made), lambda health: "again (1)" in health.reason
    )
    assert health.status == "ok"
