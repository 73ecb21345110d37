"""The stand-in has the quirks that were observed with the public backend, and can do without."""

import httpx
import pytest

LOGIN = {"username": "admin", "password": "hunter2 &="}
CLIENTS = "/admin/ai-clients"


@pytest.fixture
def ask():
    """Ask a backend as its administrator: ``ask(halext, "POST", path, body)``."""
    with httpx.Client(trust_env=False, verify=False) as client:

        def ask(halext, method, path, body=None, login=LOGIN):
            token = client.post(f"{halext.url}/api/token", data=login).json()["access_token"]
            headers = {"authorization": f"Bearer {token}"}
            return client.request(method, f"{halext.url}/api{path}", json=body, headers=headers)

        yield ask


@pytest.fixture
def anonymous():
    with httpx.Client(trust_env=False, verify=False) as client:
        yield client


def test_every_route_is_there_twice_and_a_slash_too_much_redirects(halext, anonymous):
    for prefix in ("", "/api"):
        said = anonymous.get(f"{halext.url}{prefix}/version").json()
        assert (said["api_name"], said["version"]) == ("Halext Org API", "0.2.0-refactored")
        assert anonymous.get(f"{halext.url}{prefix}/health").json()["status"] == "healthy"
        moved = anonymous.get(f"{halext.url}{prefix}/version/")
        assert (moved.status_code, moved.headers["location"]) == (307, f"{prefix}/version")


def test_only_a_form_logs_in(halext, anonymous):
    for path in ("/token/login", "/token/refresh", "/auth/login"):
        assert anonymous.post(f"{halext.url}/api{path}", json=LOGIN).status_code == 404
    answer = anonymous.post(f"{halext.url}/api/token", json=LOGIN)
    assert answer.status_code == 422
    answer = anonymous.post(f"{halext.url}/api/token", data={**LOGIN, "password": "x"})
    assert answer.json() == {"detail": "Incorrect username or password"}


def test_who_asks_is_told_apart(halext, anonymous, ask):
    url = f"{halext.url}/api{CLIENTS}"
    assert anonymous.get(url).json() == {"detail": "Not authenticated"}
    wrong = anonymous.get(url, headers={"authorization": "Bearer x"})
    assert wrong.json() == {"detail": "Could not validate credentials"}
    new = {"username": "u", "password": "p", "email": "u@example.org"}
    anonymous.post(f"{halext.url}/api/users/", json=new)
    refused = ask(halext, "GET", CLIENTS, login={"username": "u", "password": "p"})
    assert (refused.status_code, refused.json()["detail"]) == (403, "Admin access required")


def test_who_says_that_he_is_an_administrator_is_one(halext, anonymous):
    new = {"username": "u", "password": "p", "email": "u@example.org", "is_admin": True}
    made = anonymous.post(f"{halext.url}/api/users/", json=new).json()
    assert made["is_admin"] is not halext.fixed


def test_a_node_that_was_online_cannot_be_shown(halext, ask, node, add_node, dead_url):
    add_node(halext, url=dead_url)
    assert ask(halext, "GET", f"{CLIENTS}/1").json()["base_url"] == dead_url
    port = int(node.url.rpartition(":")[2])
    body = {"name": "n", "node_type": "ollama", "hostname": "127.0.0.1", "port": port}
    made = ask(halext, "POST", CLIENTS, {**body, "metadata": {"x": 1}})
    assert made.status_code == (200 if halext.fixed else 500)
    assert halext.rows[2]["status"] == "online"  # and it is made all the same
    assert halext.rows[2]["node_metadata"] == {}  # what is called otherwise is dropped
    for method, path, change in (
        ("GET", CLIENTS, None),
        ("GET", f"{CLIENTS}/2", None),
        ("PUT", f"{CLIENTS}/2", {"name": "new", "port": 1}),
    ):
        status = ask(halext, method, path, change).status_code
        assert status == (200 if halext.fixed else 500)
    assert (halext.rows[2]["name"], halext.rows[2]["port"]) == ("new", port)
    assert ask(halext, "DELETE", f"{CLIENTS}/2").status_code == 204


def test_anything_may_be_a_node(halext, ask):
    body = {"name": "x", "node_type": "weird", "hostname": "no such host", "port": 0}
    status = ask(halext, "POST", CLIENTS, body).status_code
    assert status == (422 if halext.fixed else 200)
    assert ask(halext, "POST", CLIENTS, {"name": "x"}).status_code == 422


def test_what_a_node_has_is_what_it_had(halext, ask, node, add_node):
    add_node(halext)
    assert ask(halext, "GET", f"{CLIENTS}/1/models").json() == {"models": ["small:latest"]}
    node.models["new:latest"] = node.models["small:latest"]
    stale = ask(halext, "GET", f"{CLIENTS}/1/models").json()["models"]
    assert ("new:latest" in stale) is halext.fixed
    told = ask(halext, "POST", f"{CLIENTS}/1/test").json()
    assert (told["status"], told["online"], told["model_count"]) == ("online", True, 2)
    node.close()
    dead = ask(halext, "POST", f"{CLIENTS}/1/test").json()
    assert dead["message"] == "Connection refused - service not running"
    kept = ask(halext, "GET", f"{CLIENTS}/1/models").json()["models"]
    assert bool(kept) is not halext.fixed
    assert ask(halext, "GET", f"{CLIENTS}/1/info").json() == {
        "error": "All connection attempts failed"
    }
    node.__init__()


def test_nodes_that_are_not_there(halext, ask, dead_url, add_node):
    status = ask(halext, "POST", f"{CLIENTS}/7/test").status_code
    assert status == (404 if halext.fixed else 500)
    assert ask(halext, "GET", f"{CLIENTS}/7/info").status_code == 404
    add_node(halext, "Web", dead_url, "openwebui")
    assert ask(halext, "GET", f"{CLIENTS}/1/info").json() == {}
    pulled = ask(halext, "POST", f"{CLIENTS}/1/pull-model", {"model_name": "x"})
    assert pulled.json() == {"detail": "Only Ollama nodes support model pulling"}


def test_a_download_that_failed_is_a_success(halext, ask, node, add_node):
    add_node(halext)
    body = {"model_name": "nobody-made-it"}
    answer = ask(halext, "POST", f"{CLIENTS}/1/pull-model", body)
    if halext.fixed:
        assert answer.status_code == 400
    else:
        assert answer.json() == {
            "status": "success",
            "message": "Started pulling nobody-made-it on Node1",
        }


def test_nothing_can_be_removed(halext, ask, node, add_node):
    add_node(halext)
    answer = ask(halext, "POST", f"{CLIENTS}/1/delete-model", {"model_name": "small"})
    assert answer.status_code == (200 if halext.fixed else 400)
    assert ("small:latest" in node.models) is not halext.fixed


def test_models_never_fail_to_be_listed(halext, ask, node, add_node):
    listed = [each["id"] for each in ask(halext, "GET", "/ai/models").json()["models"]]
    assert listed == ([] if halext.fixed else ["mock:llama3.1"])
    add_node(halext)
    (entry,) = ask(halext, "GET", "/ai/models").json()["models"]
    assert (entry["id"], entry["endpoint"]) == ("client:1:small:latest", node.url)
    for name, status in (("client:1:small", 400), ("client:1:small:latest", 200)):
        body = {"default_model_id": name}
        assert ask(halext, "POST", "/admin/ai/default-model", body).status_code == status


@pytest.mark.parametrize("model", ["client:1:nope", "client:9:small:latest"])
def test_a_mock_answers_for_who_is_not_there(halext, ask, add_node, model):
    add_node(halext)
    answer = ask(halext, "POST", "/ai/chat", {"prompt": "hi", "model": model})
    streamed = ask(halext, "POST", "/ai/chat/stream", {"prompt": "hi", "model": model})
    embedded = ask(halext, "POST", "/ai/embeddings", {"text": "hi", "model": model})
    if halext.fixed:
        assert {answer.status_code, streamed.status_code, embedded.status_code} == {503}
    else:
        assert answer.json()["provider"] == "mock"
        assert answer.json()["response"].startswith("I am a mock AI assistant.")
        assert streamed.headers["x-halext-ai-model"] == model  # which is a lie
        assert "data: mock" in streamed.text
        assert embedded.json()["dimension"] == 384


def test_a_chat_takes_a_prompt_and_no_messages(halext, ask, node, add_node):
    add_node(halext)
    body = {"model": "client:1:small:latest"}
    assert ask(halext, "POST", "/ai/chat", {**body, "messages": []}).status_code == 422
    said = ask(halext, "POST", "/ai/chat", {**body, "prompt": "hi"}).json()
    assert said == {"response": '{"a": "red"}', "model": body["model"], "provider": "client"}
    assert node.chats[-1]["options"] == {"temperature": 0.7, "num_predict": 2000}
