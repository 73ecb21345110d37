"""The deployer: a GGUF becomes a model that was seen to answer, and goes again."""

import json
import logging
import shutil
import time
from pathlib import Path

import attrs
import pytest

from linnix_core import LinnixError, PluginUnavailable, Secret
from linnix_plugin_ollama import OllamaDeployerConfig
from linnix_plugin_ollama.names import full_name, is_same_model
from linnix_plugin_ollama.templates import FAMILIES, family_of, read_chat_template
from linnix_plugin_ollama.testing import CHATML_JINJA, Kept

OTHER = f"sha256:{'0' * 64}"


def made_of(ollama):
    """What ``/api/create`` was asked last."""
    return ollama.asked("/api/create")[-1]


def uploads(ollama):
    """The sizes of the files that came."""
    sizes = ollama.asked("/api/blobs/")
    return [size for size in sizes if size != {}]


# --- from a file to a model -----------------------------------------------------------


def test_a_file_becomes_a_model_that_answers(ollama, make_deployer, make_spec):
    spec = make_spec("oracle-farore")
    deployer = make_deployer()
    made = deployer.linnix_deploy(spec)
    assert (made.name, made.deployer) == ("oracle-farore", "ollama")
    assert made.model == "oracle-farore:latest"
    assert made.endpoint == f"{ollama.url}/v1"
    assert made.digest == spec.options["digest"]
    assert made.details["model_id"] == "oracle-farore"
    assert made.details["manifest"] == ollama.models["oracle-farore:latest"].manifest
    assert made_of(ollama)["files"] == {"model.gguf": made.digest}
    assert ollama.loaded == {"oracle-farore:latest"}
    health = deployer.linnix_probe(made)
    assert health.status == "ok"
    assert "answered as it must" in health.reason


def test_what_is_there_is_not_uploaded_again(ollama, make_deployer, make_spec):
    deployer, spec = make_deployer(), make_spec()
    first = deployer.linnix_deploy(spec)
    begun = len(ollama.requests)
    assert deployer.linnix_deploy(spec) == first
    asked = {request.path for request in ollama.requests[begun:]}
    assert asked == {"/api/show", "/api/tags", "/api/version"}
    # Under another name the same file serves as it is there.
    deployer.linnix_deploy(make_spec("second"))
    assert len(uploads(ollama)) == 1


def test_a_folder_with_one_gguf_will_do(ollama, make_deployer, make_spec, tmp_path):
    spec = make_spec()
    whole = attrs.evolve(spec, path=str(tmp_path), options={**spec.options, "digest": OTHER})
    assert make_deployer().linnix_deploy(whole).digest == spec.options["digest"]
    shutil.copy(spec.path, tmp_path / "second.gguf")
    with pytest.raises(LinnixError, match="2 files of the kind GGUF"):
        make_deployer().linnix_deploy(whole)


def test_without_a_known_digest_the_file_is_read(ollama, make_deployer, make_spec):
    spec = make_spec()
    unknown = attrs.evolve(spec, options={"base_model": "Qwen/Q"})
    made = make_deployer().linnix_deploy(unknown)
    assert made.digest == spec.options["digest"]
    assert made.details["model_id"] == "oracle"


def test_a_file_that_is_not_what_was_registered_is_found_out(ollama, make_deployer, make_spec):
    spec = make_spec(digest=OTHER)
    with pytest.raises(LinnixError, match="digest mismatch"):
        make_deployer().linnix_deploy(spec)
    assert "oracle:latest" not in ollama.models


@pytest.mark.parametrize("text", [b"", b"PK\3\4 a zip", b"ggml of long ago"])
def test_what_is_no_gguf_is_not_uploaded(ollama, make_deployer, make_spec, text):
    spec = make_spec()
    Path(spec.path).write_bytes(text)
    with pytest.raises(LinnixError, match="is no GGUF"):
        make_deployer().linnix_deploy(spec)
    assert not ollama.requests


def test_a_file_that_is_gone_is_an_error_with_its_path(make_deployer, make_spec):
    with pytest.raises(LinnixError, match=r"/nowhere/x.gguf cannot be read"):
        make_deployer().linnix_deploy(attrs.evolve(make_spec(), path="/nowhere/x.gguf"))


def test_how_far_an_upload_is_can_be_heard(ollama, make_deployer, make_spec, caplog):
    caplog.set_level(logging.INFO)
    make_deployer().linnix_deploy(make_spec(filler=bytes(20 << 20)))
    told = [line for line in caplog.messages if line.startswith("uploading")]
    assert 5 <= len(told) <= 10
    assert told[-1].endswith(f"{ollama.url}: 100 %")
    assert uploads(ollama)[0] > 20 << 20


# --- names, options -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["my model", "../x", "-x", "a:b:c", "x" * 81, "", "é", "a/b.c/"])
def test_a_name_that_ollama_refuses_is_refused_at_once(ollama, make_deployer, make_spec, name):
    with pytest.raises(LinnixError, match="Ollama cannot call a model"):
        make_deployer().linnix_deploy(make_spec(name))
    assert not ollama.requests


def test_names_are_compared_as_ollama_does():
    assert full_name("registry.ollama.ai/library/x") == "x:latest"
    assert full_name("hf.co:443/me/x.y:Q4_0") == "hf.co:443/me/x.y:Q4_0"
    assert is_same_model("X", "library/x:latest")
    assert not is_same_model("x", "not a name")


def test_an_option_that_nobody_knows_is_refused(ollama, make_deployer, make_spec):
    with pytest.raises(LinnixError, match="unknown option: templat, x") as error:
        make_deployer().linnix_deploy(make_spec(templat="chatml", x=1))
    assert "template" in error.value.hint
    assert not ollama.requests


def test_options_become_parameters_and_system(ollama, make_deployer, make_spec):
    made = make_deployer().linnix_deploy(
        make_spec(num_ctx=2048, temperature=0.5, stop="</x>", system="You are brief.")
    )
    kept = ollama.models["oracle:latest"]
    assert kept.system == "You are brief."
    assert kept.parameters == {"num_ctx": 2048, "temperature": 0.5, "stop": ["</x>"]}
    assert made.details["num_ctx"] == 2048
    with pytest.raises(LinnixError, match="num_ctx must be a number"):
        make_deployer().linnix_deploy(make_spec(num_ctx="many"))


def test_what_was_asked_for_later_counts(ollama, make_deployer, make_spec):
    deployer = make_deployer()
    deployer.linnix_deploy(make_spec())
    deployer.linnix_deploy(make_spec(system="You are brief."))
    assert ollama.models["oracle:latest"].system == "You are brief."
    assert len(uploads(ollama)) == 1


# --- another model of that name -------------------------------------------------------


def test_somebody_elses_model_is_not_replaced_unasked(ollama, make_deployer, make_spec):
    deployer = make_deployer()
    with pytest.raises(LinnixError, match="has another model called small") as error:
        deployer.linnix_deploy(make_spec("small"))
    assert "replace=true" in error.value.hint
    assert not uploads(ollama)
    made = deployer.linnix_deploy(make_spec("small", replace=True))
    assert ollama.models["small:latest"].weights == made.digest


def test_undeploying_removes_it_and_twice_is_fine(ollama, make_deployer, make_spec):
    deployer = make_deployer()
    made = deployer.linnix_deploy(make_spec())
    for _ in range(2):
        deployer.linnix_undeploy(made)
    assert list(ollama.models) == ["small:latest"]


def test_undeploying_leaves_what_somebody_else_made(ollama, make_deployer, make_spec):
    deployer = make_deployer()
    made = deployer.linnix_deploy(make_spec())
    ollama.models["oracle:latest"] = Kept(OTHER)
    health = deployer.linnix_probe(made)
    assert (health.status, "has other weights now" in health.reason) == ("failed", True)
    deployer.linnix_undeploy(made)
    assert "oracle:latest" in ollama.models


def test_what_is_served_is_what_is_found(ollama, make_deployer, make_spec):
    deployer = make_deployer()
    made = deployer.linnix_deploy(make_spec("oracle:v2"))
    found = {each.name: each for each in deployer.linnix_deployments()}
    assert set(found) == {"small", "oracle:v2"}
    assert found["oracle:v2"].digest == made.digest
    assert found["oracle:v2"].details["loaded"] is True
    assert found["small"].details["loaded"] is False
    assert found["oracle:v2"].endpoint == made.endpoint


# --- what goes wrong ------------------------------------------------------------------


def test_an_error_within_a_success_is_an_error(ollama, make_deployer, make_spec):
    def create(handler, body):
        tell = handler.stream()
        tell(status="parsing GGUF")
        tell(error="unsupported architecture \x1b[31m'kitten'")

    ollama.create = create
    with pytest.raises(LinnixError, match="unsupported architecture") as error:
        make_deployer().linnix_deploy(make_spec())
    assert "\x1b" not in str(error.value)


@pytest.mark.parametrize("said", ['{"status": "parsing GGUF"}\n', "<html>", "[]", ""])
def test_a_model_that_is_made_half_way_is_an_error(ollama, make_deployer, make_spec, said):
    ollama.create = lambda handler, body: handler.send(said)
    with pytest.raises(LinnixError, match=r"half way|no Ollama server"):
        make_deployer().linnix_deploy(make_spec())


def test_a_success_that_made_nothing_is_found_out(ollama, make_deployer, make_spec):
    ollama.create = lambda handler, body: handler.stream()(status="success")
    with pytest.raises(LinnixError, match="says that it made the model, and does not have it"):
        make_deployer().linnix_deploy(make_spec())


def test_a_model_of_other_weights_is_found_out(ollama, make_deployer, make_spec):
    def create(handler, body):
        ollama.models["oracle:latest"] = Kept(OTHER)
        handler.stream()(status="success")

    ollama.create = create
    with pytest.raises(LinnixError, match="made it of other weights"):
        make_deployer().linnix_deploy(make_spec())
    assert "oracle:latest" not in ollama.models


def test_a_model_that_cannot_be_loaded_does_not_stay(ollama, make_deployer, make_spec):
    said = "model requires more system memory (48.3 GiB) than is available (5.6 GiB)"
    ollama.load = lambda handler, body: handler.send({"error": said}, 500)
    with pytest.raises(LinnixError, match=r"oracle cannot be served: .* more system memory"):
        make_deployer().linnix_deploy(make_spec())
    assert "oracle:latest" not in ollama.models


def test_nobody_there_is_said_at_once(dead_url, make_deployer, make_spec):
    deployer = make_deployer(host=dead_url)
    with pytest.raises(LinnixError, match="does not answer"):
        deployer.linnix_deploy(make_spec())
    assert list(deployer.linnix_deployments()) == []


def test_an_upload_ends_with_the_run(ollama, make_deployer, make_spec):
    deployer = make_deployer()
    ollama.take_blob = lambda handler: (
        deployer.linnix_stop(time.monotonic()) or ollama.over.wait(60)
    )
    with pytest.raises(LinnixError, match="is not asked any more"):
        deployer.linnix_deploy(make_spec(filler=bytes(32 << 20)))
    ollama.over.set()


def test_a_format_of_others_is_for_others(make_deployer, make_spec):
    assert make_deployer().linnix_deploy(attrs.evolve(make_spec(), format="safetensors")) is None


# --- quantizing -----------------------------------------------------------------------


def test_ollama_quantizes_what_it_can(ollama, make_deployer, make_spec):
    deployer, spec = make_deployer(), make_spec(quantization="F16", quantize="q4_k_m")
    made = deployer.linnix_deploy(spec)
    assert made_of(ollama)["quantize"] == "Q4_K_M"
    assert made.details["quantization"] == "Q4_K_M"
    # What it made has a digest of its own, and that is what is deployed.
    assert made.digest == ollama.models["oracle:latest"].weights != spec.options["digest"]
    assert deployer.linnix_probe(made).status == "ok"
    # Nobody can compare that with the file, so it is made again only when that is wanted.
    with pytest.raises(LinnixError, match="has another model called oracle"):
        deployer.linnix_deploy(spec)
    again = attrs.evolve(spec, options={**spec.options, "replace": True})
    assert deployer.linnix_deploy(again) == made
    assert len(uploads(ollama)) == 1


def test_what_ollama_cannot_quantize_is_told_before_anything_is_done(
    ollama, make_deployer, make_spec
):
    with pytest.raises(LinnixError, match="does not quantize to Q5_K_M, only to Q4_K_S") as error:
        make_deployer().linnix_deploy(make_spec(quantization="F16", quantize="Q5_K_M"))
    assert "convert MODEL gguf --quant Q5_K_M" in error.value.hint
    with pytest.raises(LinnixError, match="Q8_0 is not quantized again"):
        make_deployer().linnix_deploy(make_spec(quantization="Q8_0", quantize="Q4_K_M"))
    assert not ollama.requests


def test_what_was_quantized_here_is_served_as_it_is(ollama, make_deployer, make_spec):
    make_deployer().linnix_deploy(make_spec(quantization="Q5_K_M"))
    assert "quantize" not in made_of(ollama)
    make_deployer().linnix_deploy(make_spec("b", quantization="Q4_K_M", quantize="Q4_K_M"))
    assert "quantize" not in made_of(ollama)


# --- where Ollama keeps its models ----------------------------------------------------


def test_what_does_not_fit_is_not_uploaded(ollama, make_deployer, make_spec, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1000))
    with pytest.raises(LinnixError, match=r"has 0.0 GB left"):
        make_deployer().linnix_deploy(make_spec(models_dir=str(tmp_path)))
    assert not uploads(ollama)


def test_a_folder_of_models_that_is_none_is_said(make_deployer, make_spec, tmp_path):
    with pytest.raises(LinnixError, match="is no folder") as error:
        make_deployer().linnix_deploy(make_spec(models_dir=str(tmp_path / "nowhere")))
    assert "ollama_models_dir" in error.value.hint
    assert make_deployer().linnix_deploy(make_spec(models_dir=str(tmp_path)))


# --- chat templates -------------------------------------------------------------------


def test_a_template_that_ollama_knows_stays(ollama, make_deployer, make_spec):
    made = make_deployer().linnix_deploy(make_spec(template=CHATML_JINJA))
    assert made.details["template"] == "its own"
    assert "template" not in made_of(ollama)
    assert len(ollama.asked("/api/create")) == 1


@pytest.mark.parametrize(
    ("jinja", "base", "family"),
    [
        (None, "Qwen/Qwen2.5-Coder-1.5B", "chatml"),
        (None, "meta-llama/Llama-3.2-1B-Instruct", "llama3"),
        ("{{ '<|start_header_id|>' }} as nobody knows it", "Qwen/Qwen2.5-1.5B", "llama3"),
        ("{{ '### Instruction:' }}", "somebody/thing", "alpaca"),
    ],
)
def test_a_template_that_ollama_does_not_find_is_given(
    ollama, make_deployer, make_spec, jinja, base, family
):
    # hafs: no marks at all, with the stops of another family, over whatever the model brought
    made = make_deployer().linnix_deploy(make_spec(template=jinja, base_model=base))
    wanted = next(each for each in FAMILIES if each.name == family)
    kept = ollama.models["oracle:latest"]
    assert made.details["template"] == family
    assert kept.template == wanted.template
    assert kept.parameters["stop"] == list(wanted.stop)


def test_a_model_without_any_template_says_so(ollama, make_deployer, make_spec):
    deployer = make_deployer()
    made = deployer.linnix_deploy(make_spec(base_model="somebody/thing"))
    assert made.details["template"] == "none"
    assert any("chat template: none" in limit for limit in deployer.linnix_probe(made).limits)


def test_a_template_can_be_chosen_or_given(ollama, make_deployer, make_spec):
    deployer = make_deployer()
    options = {"template": "alpaca"}
    spec = make_spec(template=CHATML_JINJA)
    chosen = attrs.evolve(spec, options={**spec.options, **options})
    assert deployer.linnix_deploy(chosen).details["template"] == "alpaca"
    assert "### Instruction" in ollama.models["oracle:latest"].template
    text = "Q: {{ .Prompt }}\nA: {{ .Response }}"
    given = attrs.evolve(spec, options={**spec.options, "template": text})
    assert deployer.linnix_deploy(given).details["template"] == "given"
    assert ollama.models["oracle:latest"].template == text
    wrong = attrs.evolve(spec, options={**spec.options, "template": "chatlm"})
    with pytest.raises(LinnixError, match="there is no template 'chatlm'"):
        deployer.linnix_deploy(wrong)


@pytest.mark.parametrize(
    ("base", "family"),
    [
        ("Qwen/Qwen2-0.5B", "chatml"),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "chatml"),
        ("meta-llama/Meta-Llama-3-8B", "llama3"),
        ("meta-llama/Llama-2-7b-chat-hf", "llama2"),
        ("codellama/CodeLlama-7b-Instruct-hf", "llama2"),
        ("mistralai/Mistral-7B-Instruct-v0.3", "mistral"),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "mistral"),
        ("microsoft/Phi-3-mini-4k-instruct", "phi3"),
        ("microsoft/Phi-4-mini-instruct", "phi3"),
        ("microsoft/phi-4", "phi4"),
        ("google/gemma-2-2b-it", "gemma"),
        ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", None),
        ("qwen/something-else", None),
        ("", None),
    ],
)
def test_families_are_known_by_their_base(base, family):
    found = family_of(base, None)
    assert (found.name if found else None) == family


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_family_marks_what_is_whose(family):
    # Each template that Linnix gives is found by its own marks, and by no other's.
    assert family_of("", family.template.replace("{{ .Role }}", "assistant")) == family
    words = [word for word in (".System", ".Prompt", ".Response") if word in family.template]
    assert ".Messages" in family.template or len(words) == 3
    assert family.stop


def test_a_chat_template_is_read_from_the_header(make_spec, tmp_path):
    assert read_chat_template(Path(make_spec(template="{{ x }}").path)) == "{{ x }}"
    path = tmp_path / "cut.gguf"
    whole = Path(make_spec(template="{{ x }}" * 100).path).read_bytes()
    for length in range(len(whole) - 701, len(whole)):
        path.write_bytes(whole[:length])
        assert read_chat_template(path) is None


# --- the probe ------------------------------------------------------------------------


def test_every_probe_asks_for_a_word_made_for_it(ollama, make_deployer, make_spec):
    deployer = make_deployer(num_ctx=2048)
    made = deployer.linnix_deploy(make_spec())
    for _ in range(2):
        assert deployer.linnix_probe(made).status == "ok"
    words = [body["format"]["properties"]["word"]["enum"][0] for body in ollama.chats]
    assert len(set(words)) == 2
    assert all(body["think"] is False for body in ollama.chats)
    assert all(body["options"]["num_ctx"] == 2048 for body in ollama.chats)


def test_an_answer_from_before_is_none(ollama, make_deployer, make_spec):
    deployer = make_deployer()
    made = deployer.linnix_deploy(make_spec())
    said = json.dumps({"word": "8badf00d", "number": 8})
    ollama.chat = lambda handler, body: ollama.say(handler, said, model=body["model"])
    assert deployer.linnix_probe(made).status != "ok"


def test_a_model_that_passes_over_the_schema_is_degraded(ollama, make_deployer, make_spec):
    deployer = make_deployer()
    made = deployer.linnix_deploy(make_spec())
    ollama.chat = ollama.pass_over_format
    health = deployer.linnix_probe(made)
    assert health.status == "degraded"
    assert "not as the schema says" in health.reason


@pytest.mark.parametrize(
    "behaviour", ["obey_where_think_is_not_sent", "refuse_think", "answer_among_thoughts"]
)
def test_models_that_think_are_probed_as_they_like(ollama, make_deployer, make_spec, behaviour):
    deployer = make_deployer()
    made = deployer.linnix_deploy(make_spec())
    ollama.chat = getattr(ollama, behaviour)
    assert deployer.linnix_probe(made).status == "ok"


def test_another_model_that_answers_is_found_out(ollama, make_deployer, make_spec):
    deployer = make_deployer()
    made = deployer.linnix_deploy(make_spec())
    ollama.chat = lambda handler, body: ollama.say(handler, ollama.written(body), model="mock")
    health = deployer.linnix_probe(made)
    assert (health.status, health.reason) == ("failed", "mock answered in place of oracle")


@pytest.mark.parametrize("said", ["", "null", "[]", "<html>", '{"message": 7}', "x" * (5 << 20)])
def test_hostile_answers_are_a_reason_and_nothing_else(ollama, make_deployer, make_spec, said):
    deployer = make_deployer()
    made = deployer.linnix_deploy(make_spec())
    ollama.chat = lambda handler, body: handler.send(said)
    health = deployer.linnix_probe(made)
    assert health.status == "failed"
    assert len(health.reason) < 500


def test_a_probe_ends_in_time(ollama, make_deployer, make_spec):
    deployer = make_deployer(probe_timeout=0.5)
    made = deployer.linnix_deploy(make_spec())
    ollama.chat = lambda handler, body: ollama.over.wait()
    health = deployer.linnix_probe(made)
    assert (health.status, "within" in health.reason) == ("failed", True)


def test_a_server_that_died_fails_the_probe(ollama, make_deployer, make_spec, dead_url):
    deployer = make_deployer()
    made = deployer.linnix_deploy(make_spec())
    health = deployer.linnix_probe(attrs.evolve(made, endpoint=f"{dead_url}/v1"))
    assert (health.status, "does not answer" in health.reason) == ("failed", True)
    health = deployer.linnix_probe(attrs.evolve(made, endpoint="http://10.0.0.7/v1"))
    assert (health.status, "clear text" in health.reason) == ("failed", True)


# --- keys -----------------------------------------------------------------------------


def test_the_key_is_for_the_configured_server_only(ollama, make_deployer, make_spec):
    deployer = make_deployer(api_key=Secret("k1"))
    made = deployer.linnix_deploy(make_spec())
    assert {request.headers["authorization"] for request in ollama.requests} == {"Bearer k1"}
    ollama.requests.clear()
    elsewhere = ollama.url.replace("127.0.0.1", "localhost")
    assert deployer.linnix_probe(attrs.evolve(made, endpoint=f"{elsewhere}/v1")).status == "ok"
    assert {request.headers["authorization"] for request in ollama.requests} == {None}


def test_a_redirect_is_not_followed(ollama, make_deployer, make_spec):
    def moved(handler, body):
        handler.send_response(307)
        handler.send_header("location", f"{ollama.url}/elsewhere")
        handler.send_header("content-length", "0")
        handler.end_headers()

    ollama.post = moved
    with pytest.raises(LinnixError, match="says 307"):
        make_deployer(api_key=Secret("k1")).linnix_deploy(make_spec())
    assert not ollama.asked("/elsewhere")


def test_a_proxy_that_is_named_is_used(ollama, make_deployer, make_spec):
    deployer = make_deployer(
        host="http://far.invalid:11434", plain_http=True, proxy=Secret(ollama.url)
    )
    with pytest.raises(LinnixError):
        deployer.linnix_deploy(make_spec())
    assert ollama.requests[0].path == "http://far.invalid:11434/api/show"


def test_an_authority_that_is_none_is_said_at_the_start(make_deployer, tmp_path):
    with pytest.raises(PluginUnavailable, match=r"ca_file .* cannot be used"):
        make_deployer(ca_file=tmp_path / "missing.pem").linnix_start()


def test_the_environment_names_the_server(ollama, make_deployer, make_spec, monkeypatch):
    monkeypatch.setenv("OLLAMA_HOST", ollama.url.removeprefix("http://"))
    assert make_deployer(host=None).linnix_deploy(make_spec())
    monkeypatch.setenv("OLLAMA_HOST", "10.0.0.7")
    with pytest.raises(PluginUnavailable, match="clear text"):
        make_deployer(host=None).linnix_start()


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"host": "10.1.2.3"}, "host would send"),
        ({"num_ctx": 0}, "'num_ctx' must be > 0"),
        ({"probe_timeout": 0.0}, "'probe_timeout' must be > 0"),
    ],
)
def test_a_mistake_in_the_table_names_its_key(keys, said):
    with pytest.raises(ValueError, match=said):
        OllamaDeployerConfig(**keys)
    assert OllamaDeployerConfig(host="10.1.2.3", plain_http=True).host
