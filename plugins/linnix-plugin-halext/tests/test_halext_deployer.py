"""The deployer: the node that is meant gets the model, and nobody's word is taken for it."""

import json
import logging
import threading

import attrs
import pytest

from linnix_core import LinnixError, PluginUnavailable, Secret
from linnix_plugin_halext import HalextConfig
from linnix_plugin_halext.detection import detect
from linnix_plugin_ollama.testing import Kept

NAME = "oracle-farore:latest"


def heard(server, header="authorization"):
    """Every value of a header that a server was sent."""
    requests = getattr(server, "requests", [])
    return {request[2][header] for request in requests if len(request) == 4} | {
        request.headers[header] for request in requests if hasattr(request, "headers")
    }


# --- what an address is ---------------------------------------------------------------


def test_an_address_is_known_by_how_it_answers(node, halext, gateway):
    config = HalextConfig(gateway_key=Secret("gk"))
    for address in (node.url, f"{node.url}/api", f"{node.url}/v1"):
        assert (detect(config, address).kind, detect(config, address).url) == ("ollama", node.url)
    for address in (halext.url, f"{halext.url}/api"):
        found = detect(config, address)
        assert (found.kind, found.url) == ("backend", f"{halext.url}/api")
    assert detect(config, f"{gateway.url}/v1").kind == "gateway"
    assert heard(node) == heard(halext) == {None}


def test_an_address_of_nobody_says_what_is_expected(gateway, dead_url, node):
    with pytest.raises(LinnixError, match="is no Ollama server, no halext backend and no gateway"):
        detect(HalextConfig(), f"{gateway.url}/api")
    with pytest.raises(LinnixError, match=r"set gateway_key|says 401"):
        detect(HalextConfig(), f"{gateway.url}/v1")
    with pytest.raises(LinnixError, match="does not answer"):
        detect(HalextConfig(), dead_url)


def test_a_redirect_is_named_and_not_followed(observed, node):
    observed.replaced["/version"] = (307, "", {"location": f"{node.url}/api/version"})
    with pytest.raises(LinnixError, match="sends elsewhere: ") as error:
        detect(HalextConfig(gateway_key=Secret("gk")), f"{observed.url}/api")
    assert node.url in str(error.value)
    assert not node.requests


# --- a node, named directly -----------------------------------------------------------


def test_a_model_is_put_on_a_node_and_answers(node, make_deployer, spec):
    # hafs: "Deployed to halext node", and nothing was
    deployer = make_deployer()
    made = deployer.linnix_deploy(spec(f"{node.url}/api"))
    assert (made.name, made.deployer) == ("oracle-farore", "halext")
    assert (made.model, made.endpoint) == (NAME, f"{node.url}/v1")
    assert made.digest == node.models[NAME].weights
    assert made.details["model_id"] == "oracle-farore"
    assert made.details["node_url"] == node.url
    assert deployer.linnix_probe(made).status == "ok"
    assert len(node.asked("/api/blobs")) == 2  # a question and an upload
    assert deployer.linnix_deploy(spec(node.url)) == made
    assert len(node.asked("/api/blobs")) == 2
    for _ in range(2):
        deployer.linnix_undeploy(made)
    assert NAME not in node.models
    assert deployer.linnix_probe(made).status == "failed"


def test_without_a_node_or_in_another_format_it_is_for_others(make_deployer, spec):
    assert make_deployer().linnix_deploy(attrs.evolve(spec(""), options={})) is None
    assert make_deployer().linnix_deploy(attrs.evolve(spec("x"), format="safetensors")) is None


def test_what_is_deployed_is_what_is_found(node, make_deployer, spec):
    deployer = make_deployer()
    made = deployer.linnix_deploy(spec(node.url))
    assert list(make_deployer().linnix_deployments()) == [made]
    node.models[NAME] = Kept(f"sha256:{'0' * 64}")  # somebody else's now
    assert list(deployer.linnix_deployments()) == []
    del node.models[NAME]
    assert list(deployer.linnix_deployments()) == []


def test_one_name_is_on_one_node(node, make_deployer, spec):
    deployer = make_deployer()
    made = deployer.linnix_deploy(spec(node.url))
    elsewhere = node.url.replace("127.0.0.1", "localhost")
    with pytest.raises(LinnixError, match=r"is deployed at .* already"):
        deployer.linnix_deploy(spec(elsewhere))
    assert deployer.linnix_deploy(spec(elsewhere, name="second"))
    deployer.linnix_undeploy(made)
    assert deployer.linnix_deploy(spec(elsewhere))


def test_a_node_that_died_fails_the_probe(node, make_deployer, spec):
    deployer = make_deployer()
    made = deployer.linnix_deploy(spec(node.url))
    node.close()
    health = deployer.linnix_probe(made)
    assert (health.status, "does not answer" in health.reason) == ("failed", True)
    assert list(deployer.linnix_deployments()) == []
    node.__init__()


def test_options_of_ollama_count_and_others_are_refused(node, make_deployer, spec):
    make_deployer().linnix_deploy(spec(node.url, system="You are brief."))
    assert node.models[NAME].system == "You are brief."
    with pytest.raises(LinnixError, match="unknown option: gpu"):
        make_deployer().linnix_deploy(spec(node.url, gpu=1))


# --- a node of a backend --------------------------------------------------------------


def test_the_only_node_of_a_backend_is_found(halext, node, add_node, make_deployer, spec):
    add_node(halext)
    deployer = make_deployer()
    made = deployer.linnix_deploy(spec(f"{halext.url}/api"))
    assert made.endpoint == f"{node.url}/v1"
    assert made.details["backend"] == f"{halext.url}/api"
    assert made.details["node_id"] == 1
    assert made.details["backend_model"] == f"client:1:{NAME}"
    health = deployer.linnix_probe(made)
    assert health.status == "ok", health.reason
    # The node hears no token, and the account is not in what is written down.
    assert heard(node) == {None}
    assert "hunter2" not in json.dumps(attrs.asdict(made))
    deployer.linnix_undeploy(made)
    assert NAME not in node.models
    assert NAME not in halext.rows[1]["capabilities"]["models"]  # its list is not stale


def test_which_node_is_meant_can_be_said(halext, node, add_node, make_deployer, spec, dead_url):
    add_node(halext, "dead one", dead_url)
    add_node(halext, "gpu1")
    base = f"{halext.url}/api"
    with pytest.raises(LinnixError, match="has 2 nodes: which one") as error:
        make_deployer().linnix_deploy(spec(base))
    assert "dead one (1), gpu1 (2)" in error.value.hint
    for said in ({"client": "gpu1"}, {"client": 2}, {"ollama": node.url}):
        assert make_deployer().linnix_deploy(spec(base, **said)).details["node_id"] == 2
    assert make_deployer().linnix_deploy(spec(f"{base}#gpu1")).details["node_id"] == 2
    with pytest.raises(LinnixError, match="has 0 nodes called 'gpu7'"):
        make_deployer().linnix_deploy(spec(base, client="gpu7"))


def test_two_nodes_of_one_name_are_not_guessed(observed, add_node, make_deployer, spec):
    add_node(observed, "twin")
    add_node(observed, "twin")
    with pytest.raises(LinnixError, match="has 2 nodes called 'twin'"):
        make_deployer().linnix_deploy(spec(f"{observed.url}/api", client="twin"))


def test_a_node_that_the_backend_does_not_know_is_added_once(halext, node, make_deployer, spec):
    # Observed: 500 for a node that is made and online.
    for _ in range(2):
        made = make_deployer(backend=f"{halext.url}/api").linnix_deploy(
            spec(node.url, client="mine")
        )
    assert [row["name"] for row in halext.rows.values()] == ["mine"]
    assert made.details["node_name"] == "mine"
    assert make_deployer(backend=halext.url).linnix_probe(made).status == "ok"


def test_a_node_that_cannot_be_added_is_an_error(observed, node, make_deployer, spec):
    observed.replaced["/admin/ai-clients"] = (500, "Internal Server Error", {})
    with pytest.raises(LinnixError, match="says 500 of a node called mine"):
        make_deployer(backend=observed.url).linnix_deploy(spec(node.url, client="mine"))
    assert not node.asked("/api/blobs")  # nothing is uploaded for nothing


def test_a_dead_node_is_found_before_anything_travels(
    halext, add_node, make_deployer, spec, dead_url
):
    add_node(halext, "dead", dead_url)
    with pytest.raises(LinnixError, match="never through its backend") as error:
        make_deployer().linnix_deploy(spec(f"{halext.url}/api"))
    assert "-o ollama=" in error.value.hint


def test_a_node_that_is_no_ollama_server_gets_no_model(
    halext, gateway, add_node, make_deployer, spec
):
    add_node(halext, "web", gateway.url, "openwebui")
    with pytest.raises(LinnixError, match=r"does not say where web is|is no Ollama server"):
        make_deployer().linnix_deploy(spec(f"{halext.url}/api"))


def test_an_address_that_means_another_machine_is_not_used(node, make_deployer, spec):
    from linnix_plugin_halext.backend import Backend

    backend = Backend(HalextConfig(plain_http=True), "http://far.invalid/api")
    with pytest.raises(LinnixError, match="means another machine for http://far"):
        backend.see_that_it_is_alike("http://127.0.0.1:11434")
    with pytest.raises(LinnixError, match="at http://HOST:PORT only"):
        backend.add("n", "https://node1.invalid/api")


# --- who answers in its place ---------------------------------------------------------


def test_a_mock_that_answers_for_the_node_is_found_out(
    observed, node, add_node, make_deployer, spec
):
    add_node(observed)
    deployer = make_deployer()
    made = deployer.linnix_deploy(spec(f"{observed.url}/api"))
    # The node lives, and the backend looks for it elsewhere.
    observed.rows[1]["port"] = 1
    health = deployer.linnix_probe(made)
    assert (health.status, "does not reach the node" in health.reason) == ("failed", True)
    observed.replaced["/admin/ai-clients/1/test"] = (200, {"online": True, "models": [NAME]}, {})
    health = deployer.linnix_probe(made)
    assert health.status == "failed"
    assert "mock:llama3.1 of mock instead" in health.reason


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"response": "ok", "model": f"client:2:{NAME}", "provider": "client"}, "client:2:"),
        ({"response": "ok", "model": f"client:1:{NAME}", "provider": "openai"}, "of openai"),
        ({"response": "I am a mock AI assistant.", "model": f"client:1:{NAME}",
          "provider": "client"}, "a mock's"),
        ({"response": " ", "model": f"client:1:{NAME}", "provider": "client"}, "empty"),
        ({"response": None, "model": None, "provider": None}, "nobody|None"),
    ],
)  # fmt: skip
def test_an_answer_that_is_not_the_models_fails(observed, add_node, make_deployer, spec, said, why):
    import re

    add_node(observed)
    deployer = make_deployer()
    made = deployer.linnix_deploy(spec(f"{observed.url}/api"))
    observed.replaced["/ai/chat"] = (200, said, {})
    health = deployer.linnix_probe(made)
    assert health.status == "failed"
    assert re.search(why, health.reason)


def test_a_backend_that_does_not_see_the_model_fails(observed, add_node, make_deployer, spec):
    add_node(observed)
    deployer = make_deployer()
    made = deployer.linnix_deploy(spec(f"{observed.url}/api"))
    observed.replaced["/admin/ai-clients/1/test"] = (200, {"online": True, "models": ["x"]}, {})
    assert "does not see" in deployer.linnix_probe(made).reason


def test_a_backend_that_is_gone_leaves_a_node_that_answers(
    observed, node, add_node, make_deployer, spec, caplog
):
    add_node(observed)
    deployer = make_deployer()
    made = deployer.linnix_deploy(spec(f"{observed.url}/api"))
    observed.close()
    health = deployer.linnix_probe(made)
    assert (health.status, "the node answers" in health.reason) == ("degraded", True)
    with caplog.at_level(logging.WARNING):
        deployer.linnix_undeploy(made)
    assert NAME not in node.models
    assert "lists what there was before" in caplog.text
    observed.__init__()


@pytest.mark.parametrize(
    "answer",
    ["", "null", "[]", "<html>", '{"online": "yes", "models": 7}', "[" * 100_000, "x" * (5 << 20)],
    ids=lambda text: text[:8],
)
@pytest.mark.parametrize("path", ["/ai/chat", "/admin/ai-clients/1/test"])
def test_hostile_answers_are_a_reason_and_nothing_else(
    observed, add_node, make_deployer, spec, path, answer
):
    add_node(observed)
    deployer = make_deployer()
    made = deployer.linnix_deploy(spec(f"{observed.url}/api"))
    observed.replaced[path] = (200, answer, {})
    health = deployer.linnix_probe(made)
    assert health.status != "ok"
    assert len(health.reason) < 600


def test_a_backend_that_does_not_end_is_given_up(observed, add_node, make_deployer, spec):
    add_node(observed)
    deployer = make_deployer(probe_timeout=1.0)
    made = deployer.linnix_deploy(spec(f"{observed.url}/api"))
    observed.chat = lambda body: observed.over.wait()
    health = deployer.linnix_probe(made)
    assert (health.status, "has not answered within" in health.reason) == ("degraded", True)


# --- accounts -------------------------------------------------------------------------


def test_a_token_that_ran_out_is_replaced(observed, add_node, make_deployer, spec):
    add_node(observed)
    deployer = make_deployer()
    made = deployer.linnix_deploy(spec(f"{observed.url}/api"))
    observed.tokens.clear()  # half an hour later
    assert deployer.linnix_probe(made).status == "ok"
    assert observed.logins == 2


def test_a_token_stands_in_place_of_logging_in(observed, add_node, make_deployer, spec):
    add_node(observed)
    observed.tokens["t0"] = "admin"
    deployer = make_deployer(token=Secret("t0"), username=None, password=None)
    assert deployer.linnix_deploy(spec(f"{observed.url}/api"))
    assert observed.logins == 0
    observed.tokens.clear()
    with pytest.raises(LinnixError, match="says 401") as error:
        deployer.linnix_deploy(spec(f"{observed.url}/api"))
    assert "token" in error.value.hint


def test_the_environment_may_hold_the_account(observed, add_node, make_deployer, spec, monkeypatch):
    add_node(observed)
    deployer = make_deployer(username=None, password=None)
    with pytest.raises(LinnixError, match="wants to know who asks"):
        deployer.linnix_deploy(spec(f"{observed.url}/api"))
    monkeypatch.setenv("HALEXT_USERNAME", "admin")
    monkeypatch.setenv("HALEXT_PASSWORD", "hunter2 &=")
    assert deployer.linnix_deploy(spec(f"{observed.url}/api"))


@pytest.mark.parametrize("password", ["wrong-one", "hunter2 &="])
def test_what_was_told_in_confidence_is_not_said(observed, make_deployer, spec, password):
    # A server may say back what it was sent, as FastAPI does with a form that it does not take.
    echo = json.dumps({"detail": [{"input": {"password": password}}]})
    observed.replaced["/token"] = (422, echo, {})
    deployer = make_deployer(password=Secret(password))
    with pytest.raises(LinnixError, match="says 422") as error:
        deployer.linnix_deploy(spec(f"{observed.url}/api"))
    assert password not in str(error.value)
    del observed.replaced["/token"]
    observed.users["admin"]["password"] = password
    # Also where it would be cut in the middle.
    said = "worn out: " + "x" * 265 + "eyJhbGciOiJIUzI1NiJ9.token1.sig"
    observed.replaced["/admin/ai-clients/health-check-all"] = (400, {"detail": said}, {})
    with pytest.raises(LinnixError, match="worn out") as error:
        make_deployer(password=Secret(password)).linnix_deploy(spec(f"{observed.url}/api"))
    assert "eyJ" not in str(error.value)


@pytest.mark.parametrize("url", ["http://[", "ftp://x", "http://u:p@127.0.0.1", "x" * 5000])
def test_an_address_that_a_backend_makes_up_is_refused(
    observed, add_node, make_deployer, spec, url
):
    add_node(observed)
    observed.replaced["/admin/ai-clients/1/info"] = (200, {"url": url}, {})
    with pytest.raises(LinnixError, match="the node itself"):
        make_deployer().linnix_deploy(spec(f"{observed.url}/api"))


@pytest.mark.parametrize("token", ["", 7, "a b", "x\ny", "x" * 9000, None])
def test_a_token_that_is_none_is_not_used(observed, make_deployer, spec, token):
    observed.replaced["/token"] = (200, {"access_token": token}, {})
    with pytest.raises(LinnixError):
        make_deployer().linnix_deploy(spec(f"{observed.url}/api"))


def test_who_is_no_administrator_is_told(observed, make_deployer, spec):
    observed.users["guest"] = {"password": "g", "is_admin": False}
    with pytest.raises(LinnixError, match="Admin access required") as error:
        make_deployer(username="guest", password=Secret("g")).linnix_deploy(
            spec(f"{observed.url}/api")
        )
    assert "administrator" in error.value.hint


def test_the_account_is_for_the_configured_backend_only(observed, make_deployer, spec):
    with pytest.raises(LinnixError, match="is not told its account"):
        make_deployer(backend="https://org.halext.example/api").linnix_deploy(
            spec(f"{observed.url}/api")
        )
    assert observed.logins == 0
    assert heard(observed) == {None}


def test_a_redirect_takes_no_token_along(observed, add_node, node, make_deployer, spec):
    add_node(observed)
    node.requests.clear()
    away = (307, "", {"location": f"{node.url}/elsewhere"})
    observed.replaced["/admin/ai-clients/health-check-all"] = away
    with pytest.raises(LinnixError, match="says 307") as error:
        make_deployer().linnix_deploy(spec(f"{observed.url}/api"))
    assert "nothing is followed" in error.value.hint
    assert not node.requests


def test_clear_text_to_other_machines_has_to_be_allowed(node, make_deployer, spec):
    for address in ("http://node1.invalid:11434", "http://10.0.0.7/api"):
        with pytest.raises(LinnixError, match="clear text"):
            make_deployer().linnix_deploy(spec(address))
    far = "http://node1.invalid:11434"
    with pytest.raises(LinnixError, match="is no Ollama server"):
        make_deployer(plain_http=True, proxy=Secret(node.url)).linnix_deploy(spec(far))
    assert node.requests[0].path == f"{far}/api/version"
    with pytest.raises(LinnixError, match="must hold no user and no password"):
        make_deployer().linnix_deploy(spec("https://admin:pw@node1.invalid/api"))


def test_a_node_of_a_backend_in_clear_text_has_to_be_allowed(observed, make_deployer, spec):
    observed.rows[1] = {
        "id": 1, "name": "far", "node_type": "ollama", "hostname": "10.255.255.1", "port": 1,
        "is_active": False, "last_seen_at": None, "status": "offline", "capabilities": {},
    }  # fmt: skip
    found = {"results": [{"node_id": 1, "name": "far"}]}
    observed.replaced["/admin/ai-clients/health-check-all"] = (200, found, {})
    url = {"url": "http://10.255.255.1:1"}
    observed.replaced["/admin/ai-clients/1/info"] = (200, url, {})
    with pytest.raises(LinnixError, match=r"10.255.255.1 in clear text"):
        make_deployer().linnix_deploy(spec(f"{observed.url}/api"))


def test_a_key_for_nodes_is_for_those_that_are_named(observed, node, add_node, make_deployer, spec):
    add_node(observed)
    node.requests.clear()
    deployer = make_deployer(node_key=Secret("nk"))
    made = deployer.linnix_deploy(spec(f"{observed.url}/api"))
    assert heard(node) == {None}
    deployer.linnix_undeploy(made)
    node.requests.clear()
    made = deployer.linnix_deploy(spec(f"{observed.url}/api", ollama=node.url))
    assert "Bearer nk" in heard(node)
    node.requests.clear()
    deployer.linnix_probe(made)
    assert "Bearer nk" in heard(node)


# --- a gateway ------------------------------------------------------------------------


def test_a_gateway_cannot_be_given_a_model(node, gateway, make_deployer, spec):
    deployer = make_deployer(gateway_key=Secret("gk"))
    with pytest.raises(LinnixError, match="has no way to bring a model there") as error:
        deployer.linnix_deploy(spec(f"{gateway.url}/v1"))
    assert "-o ollama=" in error.value.hint
    assert not node.asked("/api/blobs")


def test_behind_a_gateway_the_node_gets_the_model(node, gateway, make_deployer, spec):
    deployer = make_deployer(gateway_key=Secret("gk"), org_id="org7")
    made = deployer.linnix_deploy(spec(f"{gateway.url}/v1", ollama=node.url))
    assert (made.endpoint, made.model) == (f"{gateway.url}/v1", NAME)
    assert deployer.linnix_probe(made).status == "ok"
    assert heard(gateway, "x-halext-org-id") <= {"org7", None}
    assert heard(node) == {None}  # the gateway's key is the gateway's
    assert list(deployer.linnix_deployments()) == [made]
    deployer.linnix_undeploy(made)
    assert NAME not in node.models


def test_what_a_gateway_lists_can_be_used_and_is_left(
    node, gateway, make_deployer, spec, monkeypatch
):
    monkeypatch.setenv("HALEXT_API_KEY", "gk")
    monkeypatch.setenv("OPENAI_API_KEY", "of another")  # hafs: told to the gateway
    node.models[NAME] = Kept(f"sha256:{'1' * 64}")
    deployer = make_deployer()
    made = deployer.linnix_deploy(spec(f"{gateway.url}/v1"))
    assert (made.digest, made.model) == (None, NAME)
    health = deployer.linnix_probe(made)
    assert (health.status, "weights" in health.limits[0]) == ("ok", True)
    deployer.linnix_undeploy(made)
    assert NAME in node.models
    assert list(deployer.linnix_deployments()) == []
    assert heard(gateway) == {None, "Bearer gk"}


@pytest.mark.parametrize(
    ("says", "status"),
    [
        (lambda body: "I am a mock AI assistant. Connect me to a real backend!", "failed"),
        (lambda body: f"Sure: {body['messages'][0]['content'].split()[-1]}", "degraded"),
        (lambda body: "", "failed"),
    ],
)
def test_a_gateways_answer_has_to_hold_the_word(node, gateway, make_deployer, spec, says, status):
    node.models[NAME] = Kept(f"sha256:{'1' * 64}")
    deployer = make_deployer(gateway_key=Secret("gk"))
    made = deployer.linnix_deploy(spec(f"{gateway.url}/v1"))
    gateway.chat = says
    assert deployer.linnix_probe(made).status == status
    del node.models[NAME]
    assert "does not list" in deployer.linnix_probe(made).reason


# --- keys -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"backend": "http://10.1.2.3/api"}, "backend would send"),
        ({"username": "u"}, "belong together"),
        ({"num_ctx": 0}, "'num_ctx' must be > 0"),
        ({"probe_timeout": 0.0}, "'probe_timeout' must be > 0"),
    ],
)
def test_a_mistake_in_the_table_names_its_key(keys, said):
    with pytest.raises(ValueError, match=said):
        HalextConfig(**keys)
    assert HalextConfig(backend="http://10.1.2.3/api", plain_http=True).backend


def test_what_cannot_be_used_is_said_at_the_start(make_deployer, tmp_path):
    with pytest.raises(PluginUnavailable, match=r"ca_file .* cannot be used"):
        make_deployer(ca_file=tmp_path / "missing.pem").linnix_start()
    with pytest.raises(PluginUnavailable, match="org_id"):
        make_deployer(org_id="a\nb").linnix_start()


def test_a_context_is_tried_as_it_is_configured(node, make_deployer, spec):
    deployer = make_deployer(num_ctx=1024)
    deployer.linnix_probe(deployer.linnix_deploy(spec(node.url)))
    assert node.chats[0]["options"]["num_ctx"] == 1024


def test_an_upload_ends_with_the_run(node, make_deployer, spec):
    deployer = make_deployer()
    begun = threading.Event()

    def take(handler):
        begun.set()
        node.over.wait(60)

    node.take_blob = take
    threading.Thread(target=lambda: begun.wait(60) and deployer.linnix_stop(0.0)).start()
    with pytest.raises(LinnixError, match="is not asked any more"):
        deployer.linnix_deploy(spec(node.url))
    node.over.set()
