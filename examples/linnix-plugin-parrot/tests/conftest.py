"""What the tests share: a model, a deployer, and a question about an incident."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from linnix_core import (
    AllowedAction,
    Fact,
    Incident,
    ModelSpec,
    ProcessKey,
    ReasonRequest,
    RequestProcess,
)
from linnix_plugin_parrot.deployer import ParrotDeployer

#: Seconds after which something that a test waits for will not happen any more.
HANG_S = 60.0


@pytest.fixture
def model_file(tmp_path):
    file = tmp_path / "model.json"
    habits = {
        "fork_storm": {"confidence": 80, "facts": 2},
        "cpu_spin": {"confidence": 55, "facts": 1},
    }
    file.write_text(json.dumps(habits))
    return file


@pytest.fixture
def spec(model_file):
    return ModelSpec(name="parrot", path=str(model_file), format="parrot")


@pytest.fixture
def make_deployer(linnix_context):
    """Deployers, each as a command of its own would make it; what they served is ended."""
    made = []

    def make():
        made.append(ParrotDeployer(None, linnix_context("deployers.parrot")))
        return made[-1]

    yield make
    for deployer in made:
        for deployment in deployer.linnix_deployments():
            deployer.linnix_undeploy(deployment)


@pytest.fixture
def deployer(make_deployer):
    return make_deployer()


@pytest.fixture
def request_about():
    """A request about an incident of the given class, with three facts and two processes."""

    def make(class_, timeout_s=HANG_S):
        return ReasonRequest(
            incident=Incident("f", severity="high", summary="something happened", class_=class_),
            facts=tuple(Fact("forks", n, "forks", process="P1", id=f"F{n}") for n in (1, 2, 3)),
            processes=tuple(
                RequestProcess(f"P{n}", ProcessKey("boot", n, 0), comm="bash") for n in (1, 2)
            ),
            actions=(AllowedAction("a1", "Stop it"), AllowedAction("a2", "Look at it")),
            timeout_s=timeout_s,
        )

    return make


@pytest.fixture
def serve():
    """Serve one fixed reply to every question, by anything but a parrot; the endpoint.

    None keeps the client waiting until the end of the test.
    """
    over = threading.Event()
    ends = []

    def start(reply, status=200):
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                if reply is None:
                    over.wait(HANG_S)
                    return
                self.send_response(status)
                self.end_headers()
                self.wfile.write(reply)

            def log_message(self, *args):
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        ends.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    over.set()
    for server, thread in ends:
        server.shutdown()
        thread.join(HANG_S)
        server.server_close()
