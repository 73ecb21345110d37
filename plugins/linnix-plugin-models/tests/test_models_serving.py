"""What is deployed is checked, not believed; what the registry says of it is true.

The deployers are stand-ins that keep their state in a file, so that a later command and another
process find it; they have the hooks of the core's contract.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

DEPLOYER = """
import json, os
from pathlib import Path
from typing import Any, ClassVar
import attrs
from linnix_core import Deployment, Health, LinnixError, hookimpl

@attrs.frozen
class Config:
    port: int = 8090

class Fake:
    "Serves nothing, and remembers it."
    Config = Config
    NAME = "llama-cpp"

    def __init__(self, config, context):
        self.config, self.state = config, Path(os.environ["FAKE_STATE"])

    def _all(self):
        return json.loads(self.state.read_text()) if self.state.exists() else {}

    @hookimpl
    def linnix_deploy(self, spec):
        if os.environ.get("FAKE_MODE") == "fails":
            raise LinnixError("out of memory")
        if spec.format not in ("gguf", "safetensors"):
            return None
        served = self._all()
        served[spec.name] = {"path": spec.path, "quantization": spec.quantization,
                             "options": dict(spec.options), "deployer": self.NAME}
        self.state.write_text(json.dumps(served))
        url = os.environ.get("FAKE_URL") or f"http://127.0.0.1:{self.config.port}/v1"
        return Deployment(spec.name, self.NAME, spec.name, url,
                          digest=spec.options.get("digest"),
                          details={"model_id": spec.options.get("model_id")})

    @hookimpl
    def linnix_probe(self, deployment):
        if os.environ.get("FAKE_MODE") == "mock":
            return Health("failed", "the answer is the mock's, not the model's")
        if deployment.name not in self._all():
            return Health("failed", "nobody listens")
        return Health("ok", "answered in 0.01 s")

    @hookimpl
    def linnix_undeploy(self, deployment):
        if os.environ.get("FAKE_MODE") == "gone":
            raise LinnixError("nobody answers at node1")
        served = self._all()
        served.pop(deployment.name, None)
        self.state.write_text(json.dumps(served))

    @hookimpl
    def linnix_deployments(self):
        return []

class Ollama(Fake):
    "The same under another name."
    NAME = "ollama"

class Halext(Fake):
    "And another."
    NAME = "halext"

class Vllm(Fake):
    "And one that takes checkpoints."
    NAME = "vllm"
"""


@pytest.fixture
def served(linnix_distribution, monkeypatch, tmp_path):
    linnix_distribution(
        "linnix-plugin-fakes",
        entry_points={
            "linnix.deployers": {
                "llama-cpp": "fakes:Fake", "ollama": "fakes:Ollama", "halext": "fakes:Halext",
                "vllm": "fakes:Vllm",
            }
        },
        modules={"fakes.py": DEPLOYER},
    )  # fmt: skip
    # Whatever else is installed here, these are the deployers of this test.
    monkeypatch.setenv("LINNIX_PLUGINS", "linnix-plugin-fakes")
    state = tmp_path / "state.json"
    monkeypatch.setenv("FAKE_STATE", str(state))
    return lambda: json.loads(state.read_text()) if state.exists() else {}


@pytest.fixture
def model(linnix, tmp_path, weights):
    path = tmp_path / "tiny.gguf"
    path.write_bytes(weights.gguf(15))
    linnix("models", "register", path, "--base", "Qwen/Q", "--role", "asm")
    return "tiny"


def mode(monkeypatch, name):
    monkeypatch.setenv("FAKE_MODE", name)


def test_a_model_is_served_and_the_registry_knows_where(linnix, served, model, tmp_path):
    said = linnix("models", "deploy", model, "llama.cpp", "--json").json
    assert said["endpoint"] == "http://127.0.0.1:8090/v1"
    known = linnix("models", "info", model, "--json").json
    (deployment,) = known["deployments"]
    assert deployment["deployer"] == "llama-cpp"
    assert deployment["endpoint"] == said["endpoint"]
    assert deployment["digest"] == known["artifacts"][0]["digest"] == said["digest"]
    assert (deployment["health"], deployment["quantization"]) == ("ok", "Q4_K_M")
    assert deployment["deployed_at"]
    assert deployment["checked_at"]
    assert known["deployed_backends"] == ["llama.cpp"]
    options = served()["tiny"]["options"]
    assert (options["model_id"], options["base_model"]) == ("tiny", "Qwen/Q")
    # Where the agent looks for it, too.
    stored = json.loads((tmp_path / "data" / "deployments.json").read_text())
    assert [d["name"] for d in stored["deployments"]] == ["tiny"]
    assert linnix("models", "list", "-b", "llamacpp", "--json").json["total"] == 1


def test_deploying_twice_is_once_and_undeploying_twice_is_no_error(linnix, served, model):
    for _ in range(2):
        assert linnix("models", "deploy", model, "ollama", "--name", "oracle").code == 0
    known = linnix("models", "info", model, "--json").json
    assert [d["name"] for d in known["deployments"]] == ["oracle"]
    assert known["ollama_model_name"] == "oracle"
    gone = linnix("models", "undeploy", model, "ollama", "--json").json
    assert gone == {"undeployed": ["oracle"]}
    assert served() == {}
    assert linnix("models", "undeploy", model).out == "nothing is deployed\n"
    known = linnix("models", "info", model, "--json").json
    assert (known["deployments"], known["deployed_backends"]) == ([], [])
    assert known["ollama_model_name"] is None


def test_a_deployment_that_fails_is_not_registered(linnix, served, model, monkeypatch):
    mode(monkeypatch, "fails")
    failed = linnix("models", "deploy", model, "llama.cpp")
    assert failed.code == 1
    assert "out of memory" in failed.err
    assert linnix("models", "info", model, "--json").json["deployments"] == []


def test_success_that_is_none_is_found_out(linnix, served, model, monkeypatch):  # hafs: a lie
    mode(monkeypatch, "mock")
    failed = linnix("models", "deploy", model, "halext", "--name", "http://127.0.0.1:1/api")
    assert failed.code == 1
    assert "does not answer as it must" in failed.err
    (known,) = linnix("models", "info", model, "--json").json["deployments"]
    assert known["health"] == "failed"
    assert linnix("models", "test", model, "halext").code == 1


def test_a_node_is_named_as_the_configuration_calls_it(linnix, served, model, sync_toml):
    sync_toml('[deployment.halext_nodes]\nnode1 = "https://node1.example.org/api"\n')
    assert linnix("models", "deploy", model, "halext-node", "--name", "node1").code == 0
    assert served()["tiny"]["options"]["node"] == "https://node1.example.org/api"
    known = linnix("models", "info", model, "--json").json
    assert known["halext_node_id"] == "node1"
    assert known["deployed_backends"] == ["halext-node"]
    assert "known: node1" in linnix("models", "deploy", model, "halext", "--name", "node7").err
    assert linnix("models", "deploy", model, "halext").code == 2
    # hafs: deployed as halext-node, and not found as halext
    assert linnix("models", "test", model, "halext").code == 0


def test_the_folders_of_the_configuration_reach_the_deployers(linnix, served, model, sync_toml):
    sync_toml('[deployment]\nollama_models_dir = "/var/ollama"\nllama_cpp_dir = "/opt/l"\n')
    linnix("models", "deploy", model, "ollama", "--name", "o")
    linnix("models", "deploy", model, "llama-cpp", "--name", "l", "-o", "threads=2", "-o", "x=y")
    assert served()["o"]["options"]["models_dir"] == "/var/ollama"
    options = served()["l"]["options"]
    assert (options["llama_cpp_dir"], options["threads"], options["x"]) == ("/opt/l", 2, "y")
    assert linnix("models", "deploy", model, "ollama", "-o", "nonsense").code == 2


def test_the_table_of_a_deployer_in_the_configuration_counts(linnix, served, model, home):
    with (home / "linnix.toml").open("a") as file:
        file.write("[deployers.llama-cpp]\nport = 8123\n")
    said = linnix("models", "deploy", model, "llama.cpp", "--json").json
    assert said["endpoint"] == "http://127.0.0.1:8123/v1"
    config = home / "other.toml"
    config.write_text(f'[agent]\ndata_dir = "{home}/d"\n[deployers.llama-cpp]\nport = "x"\n')
    failed = linnix("models", "deploy", model, "llama.cpp", "-c", config)
    assert (failed.code, "expected a whole number" in failed.err) == (2, True)


def test_one_name_is_served_by_one_deployer(linnix, served, model):
    linnix("models", "deploy", model, "llama.cpp")
    failed = linnix("models", "deploy", model, "ollama")
    assert "is deployed by llama-cpp already" in failed.err
    assert "--as" in failed.error.hint
    assert linnix("models", "deploy", model, "ollama", "--as", "second").code == 0
    assert len(linnix("models", "status", model, "--json").json) == 2
    assert linnix("models", "undeploy", "second").out == "undeployed: second\n"
    assert [d["name"] for d in linnix("models", "status", "--json").json] == ["tiny"]


def test_the_form_that_is_served_can_be_chosen(
    linnix, served, model, tmp_path, weights, checkpoint
):
    other = tmp_path / "tiny-q8.gguf"
    other.write_bytes(weights.gguf(7))
    linnix("models", "register", other, "--id", "tiny")
    linnix("models", "register", checkpoint(), "--id", "tiny")
    linnix("models", "deploy", model, "llama.cpp", "--quant", "q4_k_m")
    assert served()["tiny"]["path"] == str(tmp_path / "tiny.gguf")
    linnix("models", "deploy", model, "vllm", "--as", "v")
    assert served()["v"]["path"].endswith("general-20251222")
    failed = linnix("models", "deploy", model, "llama.cpp", "--quant", "Q2_K")
    assert "is not here as Q2_K" in failed.err
    assert "--quant Q2_K" in failed.error.hint


def test_a_file_that_changed_is_not_served(linnix, served, model, tmp_path):
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
    failed = linnix("models", "deploy", model, "llama.cpp")
    assert "is not as it was registered" in failed.err
    (tmp_path / "tiny.gguf").unlink()
    assert linnix("models", "deploy", model, "llama.cpp").code == 1
    linnix("models", "register", "D:/far", "--base", "b", "--role", "asm")
    assert linnix("models", "deploy", "far", "ollama").error.hint == "linnix models pull far"


def test_status_asks_and_notes_what_it_finds(linnix, served, model, monkeypatch):
    linnix("models", "deploy", model, "llama.cpp")
    (looked,) = linnix("models", "status", "--json").json
    assert looked["health"]["status"] == "ok"
    mode(monkeypatch, "mock")
    bad = linnix("models", "status")
    assert bad.code == 1
    assert "mock" in bad.out
    (known,) = linnix("models", "info", model, "--json").json["deployments"]
    assert known["health"] == "failed"
    assert linnix("models", "status", "nobody").code == 1


def test_killed_between_serving_and_noting_a_second_run_is_enough(
    linnix, served, model, registry_file
):
    before = registry_file.read_bytes()
    linnix("models", "deploy", model, "llama.cpp")
    registry_file.write_bytes(before)  # as if killed before it was noted
    (looked,) = linnix("models", "status", "--json").json
    assert (looked["name"], looked["model_id"]) == ("tiny", "tiny")
    assert linnix("models", "deploy", model, "llama.cpp").code == 0
    assert linnix("models", "info", model, "--json").json["deployed_backends"] == ["llama.cpp"]


def test_killed_between_stopping_and_forgetting_a_second_run_is_enough(
    linnix, served, model, tmp_path
):
    linnix("models", "deploy", model, "llama.cpp")
    (tmp_path / "data" / "deployments.json").unlink()
    (looked,) = linnix("models", "status", "--json").json
    assert looked["health"]["status"] == "failed"
    assert linnix("models", "undeploy", model).code == 0
    assert linnix("models", "info", model, "--json").json["deployments"] == []


def test_what_is_gone_for_good_can_be_forgotten(linnix, served, model, monkeypatch):
    linnix("models", "deploy", model, "llama.cpp")
    monkeypatch.setenv("FAKE_MODE", "gone")
    refused = linnix("models", "undeploy", model)
    assert (refused.code, "nobody answers at node1" in refused.err) == (1, True)
    done = linnix("models", "undeploy", model, "--forget")
    assert (done.code, done.out) == (0, "undeployed: tiny\n")
    assert done.err == "tiny is forgotten, and may go on: nobody answers at node1\n"
    assert linnix("models", "status", "--json").json == []


def test_without_the_deployer_what_to_install_is_told(linnix, model):
    failed = linnix("models", "deploy", model, "carrier-pigeon")
    assert "there is no deployer 'carrier-pigeon'" in failed.err
    assert failed.error.hint == "pip install linnix-plugin-carrier-pigeon"
    assert linnix("models", "test", model).code == 1


def test_a_model_that_is_deployed_is_not_deleted(linnix, served, model, tmp_path):
    linnix("models", "deploy", model, "llama.cpp")
    failed = linnix("models", "delete", model, "--yes")
    assert "is deployed as tiny" in failed.err
    linnix("models", "undeploy", model)
    assert linnix("models", "delete", model, "--yes").code == 0
    assert (tmp_path / "tiny.gguf").exists()


# --- benchmark ------------------------------------------------------------------------


@pytest.fixture
def answering(monkeypatch):
    """A server with the one route of OpenAI's API that is asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            asked.append((self.path, body))
            answer = {"choices": [{"message": {"content": "a b c"}}]}
            if body["max_tokens"] > 1:
                answer["usage"] = {"completion_tokens": body["max_tokens"]}
            self.send_response(200 if body["model"] else 500)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("FAKE_URL", f"http://127.0.0.1:{server.server_port}")
    yield asked
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_benchmark_asks_and_is_remembered(linnix, served, model, answering):
    linnix("models", "deploy", model, "llama.cpp")
    (figures,) = linnix(
        "models", "benchmark", model, "-n", 3, "--tokens", 8, "--prompt", "hi", "--json"
    ).json
    assert (figures["requests"], figures["tokens"]) == (3, 24)
    assert 0 < figures["latency_s_median"] <= figures["latency_s_worst"]
    assert len(answering) == 4  # one does not count
    assert answering[0][0] == "/v1/chat/completions"
    assert answering[1][1]["messages"] == [{"role": "user", "content": "hi"}]
    known = linnix("models", "info", model, "--json").json
    assert known["metrics"]["benchmarks"] == [figures]


def test_a_benchmark_of_what_does_not_answer_says_so(linnix, served, model, monkeypatch):
    assert "is not deployed" in linnix("models", "benchmark", model).err
    monkeypatch.setenv("FAKE_URL", "http://127.0.0.1:9/v1")
    linnix("models", "deploy", model, "llama.cpp")
    assert "gave no answer" in linnix("models", "benchmark", model).err
