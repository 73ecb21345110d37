"""Models are served by real servers of llama.cpp, and what is said of them has been looked at."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import sys
import time

import attrs
import pytest
from click.testing import CliRunner

from linnix_core import ConfigError, LinnixError, ModelSpec, Secret
from linnix_core.testing import DeployerContract
from linnix_core.testing.records import reason_request
from linnix_core.testing.waiting import eventually
from linnix_plugin_llama_cpp.deployer import LlamaCppDeployer, LlamaCppDeployerConfig
from linnix_plugin_models.models_command import command as models
from linnix_plugin_openai import Exchange, OpenAIConfig, OpenAIReasoner

#: llama-server as far as the deployer uses it: the same arguments, the same engine.
LLAMA_SERVER = """#!{python} -P
import os, sys, time
from pathlib import Path
if "ARGUMENTS" in os.environ:
    Path(os.environ["ARGUMENTS"]).write_text("\\n".join(sys.argv[1:]))
mode = os.environ.get("MODE", "")
arguments = [argument for argument in sys.argv[1:] if argument != "--no-mmap"]
if mode == "mute":
    import socket
    port = int(arguments[arguments.index("--port") + 1])
    with socket.create_server(("127.0.0.1", port)):
        time.sleep(600)
if mode == "renames":
    arguments[arguments.index("--alias") + 1] = "something-else"
from linnix_plugin_llama_cpp.xserver import main
main(arguments)
"""

HERE = [
    server
    for server, needed in {
        "xllamacpp": ["xllamacpp"],
        "llama-cpp-python": ["llama_cpp", "fastapi", "sse_starlette", "starlette_context"],
    }.items()
    if all(importlib.util.find_spec(module) for module in needed)
]

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def make(linnix_context):
    """Deployers; what they serve at the end of the test is ended."""
    made = []

    def deployer(**keys):
        keys = {"server": "xllamacpp", "port": 0, "context": 1024, "threads": 1, **keys}
        config = LlamaCppDeployerConfig(**keys)
        made.append(LlamaCppDeployer(config, linnix_context("deployers.llama-cpp")))
        return made[-1]

    yield deployer
    for one in made:
        for server in one.servers.list():
            one.servers.stop(server.name)


@pytest.fixture
def spec(tiny):
    def of(name="tiny", **options):
        return ModelSpec(name, str(tiny), options={"model_id": "tiny-1", **options})

    return of


@pytest.fixture
def llama_server(tmp_path, monkeypatch):
    """A folder with a llama-server in it, which is on PATH."""
    program = tmp_path / "llama.cpp" / "build" / "bin" / "llama-server"
    program.parent.mkdir(parents=True)
    program.write_text(LLAMA_SERVER.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return program


def arguments_of(path):
    words = path.read_text().splitlines()
    return dict(zip(words[::2], words[1::2], strict=False))


class TestLlamaCppDeployer(DeployerContract):
    @pytest.fixture
    def plugin_class(self):
        return LlamaCppDeployer

    @pytest.fixture
    def options(self):
        return {"server": "xllamacpp", "port": 0, "context": 1024, "threads": 1}

    @pytest.fixture
    def spec(self, tiny):
        return ModelSpec("tiny", str(tiny))


# --- serving --------------------------------------------------------------------------


@pytest.mark.parametrize("server", HERE)
def test_a_served_model_answers_as_it_must(make, spec, tiny, server):
    deployer = make(server=server)
    made = deployer.linnix_deploy(spec())
    assert (made.name, made.deployer, made.model) == ("tiny", "llama-cpp", "tiny")
    assert made.endpoint.startswith("http://127.0.0.1:")
    assert made.endpoint.endswith("/v1")
    assert made.digest == f"sha256:{hashlib.sha256(tiny.read_bytes()).hexdigest()}"
    assert made.details["model_id"] == "tiny-1"
    assert made.details["program"] == server
    health = deployer.linnix_probe(made)
    assert health.status == "ok"
    forms = {"xllamacpp": "json_schema", "llama-cpp-python": "json_object with schema"}
    assert health.limits == (f"structured: enforced ({forms[server]})",)
    assert deployer.linnix_deployments() == [made]


def test_the_agent_reasons_with_it(make, spec, linnix_context):
    made = make(context=16384, api_key=Secret("k1")).linnix_deploy(spec())
    context = linnix_context("reasoners.openai", deployment={"tiny": made}.get)
    config = OpenAIConfig(deployment="tiny", api_key=Secret("k1"), max_tokens=1500)
    reasoner = OpenAIReasoner(config, context)
    request = attrs.evolve(reason_request("fork_storm"), timeout_s=100.0)
    answer = reasoner.linnix_reason(request)
    assert answer.class_ in request.classes
    reasoner.linnix_stop(time.monotonic() + 5)


def test_without_the_key_nobody_is_answered(make, spec):
    deployer = make(api_key=Secret("k1"), host="0.0.0.0")
    made = deployer.linnix_deploy(spec())
    assert made.endpoint.startswith("http://127.0.0.1:")
    assert deployer.linnix_probe(made).status == "ok"
    with contextlib.closing(Exchange(made.endpoint)) as exchange:
        assert exchange.post(f"{made.endpoint}/chat/completions", {}, 10).status == 401
    other = make(api_key=Secret("k2"))
    assert other.linnix_probe(made).reason == "the server wants another api_key"


def test_others_are_let_in_with_a_key_only(make, spec):
    with pytest.raises(LinnixError, match="would let others use the model") as told:
        make(host="0.0.0.0").linnix_deploy(spec())
    assert "[deployers.llama-cpp]" in told.value.hint


# --- which server, and how ------------------------------------------------------------


@pytest.mark.parametrize("where", ["PATH", "llama_cpp_dir"])
def test_llama_server_is_taken_where_there_is_one(
    make, spec, llama_server, monkeypatch, tmp_path, where
):
    said = tmp_path / "said"
    keys = {"server": "auto", "environment": {"ARGUMENTS": str(said)}, "threads": 2}
    if where != "PATH":
        monkeypatch.setenv("PATH", "/usr/bin:/bin")
        keys["llama_cpp_dir"] = tmp_path / "llama.cpp"
    deployer = make(**keys, arguments=("--no-mmap",))
    made = deployer.linnix_deploy(spec())
    assert made.details["program"] == "llama-server"
    assert deployer.linnix_probe(made).status == "ok"
    words = arguments_of(said)
    assert words["--alias"] == "tiny"
    assert words["--ctx-size"] == "1024"
    assert words["--threads"] == "2"
    assert words["--host"] == "127.0.0.1"
    assert said.read_text().endswith("--no-mmap")


def test_options_of_one_model_count_before_the_configuration(make, spec, llama_server, tmp_path):
    said = tmp_path / "said"
    deployer = make(server="llama-server", environment={"ARGUMENTS": str(said)})
    deployer.linnix_deploy(
        spec(context=2048, base_model="b", llama_cpp_dir=str(tmp_path / "llama.cpp"))
    )
    assert arguments_of(said)["--ctx-size"] == "2048"
    with pytest.raises(ConfigError, match="expected a whole number"):
        deployer.linnix_deploy(spec(context="much"))
    with pytest.raises(ConfigError, match="contextt: unknown key"):
        deployer.linnix_deploy(spec(contextt=1))
    with pytest.raises(LinnixError, match="api_key is no option"):
        deployer.linnix_deploy(spec(api_key="k"))


def test_what_is_missing_is_told(make, spec, tmp_path, monkeypatch):
    with pytest.raises(LinnixError, match="there is no llama-server in"):
        make(server="auto", llama_cpp_dir=tmp_path).linnix_deploy(spec())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LinnixError, match="llama-server is not on PATH"):
        make(server="llama-server").linnix_deploy(spec())
    with pytest.raises(LinnixError, match="has no command line"):
        make(arguments=("--mlock",)).linnix_deploy(spec())
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    for server, hint in {
        "xllamacpp": "pip install xllamacpp",
        "llama-cpp-python": 'pip install "llama-cpp-python[server]"',
        "auto": "pip install xllamacpp, or put llama-server on PATH",
    }.items():
        with pytest.raises(LinnixError) as told:
            make(server=server).linnix_deploy(spec())
        assert told.value.hint == hint


def test_the_port_is_the_one_that_is_asked_for(make, spec):
    assert LlamaCppDeployerConfig().port == 8090
    first = make().linnix_deploy(spec())
    port = int(first.endpoint.split(":")[2].removesuffix("/v1"))
    with pytest.raises(LinnixError, match=f"port {port} is taken by the deployment tiny"):
        make(port=port).linnix_deploy(spec("second"))
    make().linnix_undeploy(first)
    again = make(port=port).linnix_deploy(spec("second"))
    assert again.endpoint == first.endpoint


@pytest.mark.parametrize("name", ["a,b", "a\nb", "-m", " "])
def test_a_name_that_servers_misread_is_refused(make, spec, name):
    with pytest.raises(LinnixError, match="cannot be the name"):
        make().linnix_deploy(spec(name))


# --- what is true ---------------------------------------------------------------------


def test_what_cannot_be_loaded_is_told_and_not_served(make, spec, tmp_path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF\x03\x00\x00\x00 and nothing that follows from that")
    deployer = make()
    with pytest.raises(
        LinnixError, match=r"xllamacpp did not come up for tiny: ended with"
    ) as told:
        deployer.linnix_deploy(attrs.evolve(spec(), path=str(broken)))
    assert "exit code 1: " in str(told.value)
    log = deployer.servers.log_path("tiny")
    assert str(log) in told.value.hint
    assert "broken.gguf" in log.read_text(errors="replace")
    assert deployer.linnix_deployments() == []
    with pytest.raises(LinnixError, match="is not there"):
        deployer.linnix_deploy(attrs.evolve(spec(), path=str(tmp_path / "none.gguf")))
    with pytest.raises(LinnixError, match="is a folder"):
        deployer.linnix_deploy(attrs.evolve(spec(), path=str(tmp_path)))


def test_who_listens_is_not_yet_well(make, spec, llama_server):
    deployer = make(server="llama-server", environment={"MODE": "mute"}, start_timeout=1.5)
    with pytest.raises(LinnixError, match=r"did not come up for tiny: within 1\.5 s: .* answer"):
        deployer.linnix_deploy(spec())
    assert deployer.servers.list() == []


def test_another_model_under_the_address_is_found_out(make, spec, llama_server):
    keys = {"server": "llama-server", "environment": {"MODE": "renames"}}
    with pytest.raises(LinnixError, match="the server has something-else, and not tiny"):
        make(**keys).linnix_deploy(spec())


def test_the_file_that_is_served_is_the_one_that_was_registered(
    make, spec, tiny, make_model, tmp_path
):
    path = shutil.copy(tiny, tmp_path / "model.gguf")
    digest = f"sha256:{hashlib.sha256(tiny.read_bytes()).hexdigest()}"
    deployer = make()
    with pytest.raises(LinnixError, match="is not the file that was registered"):
        deployer.linnix_deploy(attrs.evolve(spec(digest="sha256:0"), path=str(path)))
    made = deployer.linnix_deploy(attrs.evolve(spec(digest=digest), path=str(path)))
    os.utime(path, (1, 1))
    assert deployer.linnix_probe(made).status == "ok"
    other = deployer.linnix_probe(attrs.evolve(made, digest="sha256:0"))
    assert (other.status, other.reason) == ("failed", f"another file is served: {digest}")
    shutil.copy(make_model(seed=2), path)
    failed = deployer.linnix_probe(made)
    assert failed.status == "failed"
    assert "is not what was deployed any more" in failed.reason


def test_a_server_that_ended_is_there_again_and_that_is_told(make, spec):
    deployer = make()
    made = deployer.linnix_deploy(spec())
    os.kill(deployer.servers.find("tiny").process.pid, signal.SIGKILL)
    health = eventually(
        lambda: deployer.linnix_probe(made),
        lambda health: health.status == "ok" and "again" in health.reason,
    )
    assert "was started again (1), since it was ended by SIGKILL" in health.reason


def test_what_ends_each_time_is_given_up(make, spec, llama_server):
    deployer = make(server="llama-server", restarts=0)
    made = deployer.linnix_deploy(spec())
    os.kill(deployer.servers.find("tiny").process.pid, signal.SIGKILL)
    assert deployer.servers.find("tiny").supervisor.wait(30)
    health = deployer.linnix_probe(made)
    assert health.status == "failed"
    assert health.reason.startswith("it does not run any more: was ended by SIGKILL")
    assert deployer.linnix_deployments() == []


def test_a_probe_has_an_end(make, spec, llama_server):
    deployer = make(server="llama-server")
    made = deployer.linnix_deploy(spec())
    os.kill(deployer.servers.find("tiny").process.pid, signal.SIGSTOP)
    hasty = make(server="llama-server", probe_timeout=0.2)
    health = hasty.linnix_probe(made)
    assert health.status == "failed"
    assert re.search("has not answered within|does not answer|no time is left", health.reason)
    os.kill(deployer.servers.find("tiny").process.pid, signal.SIGCONT)


def test_the_log_and_systemd_are_as_configured(make, spec, monkeypatch):
    deployer = make(log_size=4096)
    deployer.linnix_deploy(spec())
    assert deployer.servers.find("tiny").launch.log_bytes == 4096
    assert deployer.servers.log_path("tiny").stat().st_size <= 4096
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(LinnixError, match="systemctl is not here"):
        make().linnix_deploy(spec("other", systemd=True))


# --- as it is used --------------------------------------------------------------------


def test_from_the_registry_to_an_answer_and_back(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("LINNIX_MODELS_REGISTRY", str(tmp_path / "registry.json"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    config = tmp_path / "linnix.toml"
    config.write_text(
        f'[agent]\ndata_dir = "{tmp_path}/data"\n'
        '[deployers.llama-cpp]\nserver = "xllamacpp"\nport = 0\nthreads = 1\n'
    )

    def linnix(*words, code=0):
        done = CliRunner().invoke(models, [*words], catch_exceptions=False)
        assert done.exit_code == code, done.output
        return done.output

    linnix("register", str(tiny), "--id", "tiny", "--base", "none", "--role", "test")
    try:
        said = json.loads(linnix("deploy", "tiny", "llama.cpp", "-c", str(config), "--json"))
        again = json.loads(linnix("deploy", "tiny", "llama.cpp", "-c", str(config), "--json"))
        assert said["endpoint"] == again["endpoint"]
        (looked,) = json.loads(linnix("test", "tiny", "-c", str(config), "--json"))
        assert looked["health"]["status"] == "ok"
        assert looked["digest"] == said["digest"]
    finally:
        linnix("undeploy", "tiny", "-c", str(config))
    assert "nothing is deployed" in linnix("status", "-c", str(config))
