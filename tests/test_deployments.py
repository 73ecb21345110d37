"""Deployments outlive the command that made them, and only their own deployer touches them.

Section 4 of the architecture: deployments persist in the data folder and name their
deployer; in ``linnix_deploy`` None falls through, an exception does not.
"""

from __future__ import annotations

import json
import multiprocessing
import stat

import attrs
import pytest

from linnix_core import Deployment, Health, LinnixError, ModelSpec, hookimpl
from linnix_core import deployments as deployments_module
from linnix_core.deployments import DeploymentStore, deploy, probe, undeploy
from linnix_core.plugins import CallFailed

HANG_S = 60.0
SPEC = ModelSpec(name="small", path="/models/small.gguf")


def deployment(name="small", deployer="near", **parts):
    return Deployment(name, deployer, "small.gguf", "http://127.0.0.1:8080/v1", **parts)


@pytest.fixture
def store(tmp_path):
    return DeploymentStore(tmp_path / "data" / "deployments.json")


# --- the file -------------------------------------------------------------------------


def test_a_deployment_is_found_again_by_whoever_reads_the_file(store):
    given = deployment(digest="sha256:1", created_ns=7, details={"pid": 4711, "gpus": [0, 1]})
    store.put(given)
    store.put(deployment("other"))
    again = DeploymentStore(store.path)
    assert again.get("small") == given
    assert [d.name for d in again.list()] == ["other", "small"]
    assert again.get("unknown") is None


def test_without_a_file_there_are_no_deployments_and_looking_makes_none(store):
    assert store.get("small") is None
    assert store.list() == []
    store.remove("small")
    assert store.list() == []


def test_putting_replaces_and_removing_twice_is_no_error(store):
    store.put(deployment())
    store.put(deployment(deployer="far"))
    assert [d.deployer for d in store.list()] == ["far"]
    store.remove("small")
    store.remove("small")
    assert store.list() == []


def test_the_file_and_its_folder_are_private(store):
    store.put(deployment())
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700
    assert [p.name for p in store.path.parent.iterdir() if p != store.path] == ["deployments.lock"]


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"deployments": [{}]}', '{"deployments": [{"name": "a", "colour": 1}]}'],
)
def test_a_file_that_cannot_be_read_is_an_error_and_never_overwritten(store, content):
    store.path.parent.mkdir()
    store.path.write_text(content)
    for touch in (store.list, lambda: store.get("small"), lambda: store.put(deployment())):
        with pytest.raises(LinnixError, match="cannot be read as a list of deployments") as error:
            touch()
        assert "move it away" in error.value.hint
    assert store.path.read_text() == content


def test_what_cannot_be_written_leaves_the_file_as_it_was(store):
    store.put(deployment())
    before = store.path.read_bytes()
    with pytest.raises(LinnixError, match="cannot be written: Object of type object is not JSON"):
        store.put(deployment("other", details={"process": object()}))
    assert store.path.read_bytes() == before
    assert len(list(store.path.parent.iterdir())) == 2  # the file and its lock


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(LinnixError, match="cannot be written"):
        DeploymentStore(tmp_path / "file" / "deployments.json").put(deployment())


def _put_many(path, first):
    store = DeploymentStore(path)
    for number in range(first, first + 10):
        store.put(deployment(f"m{number:02}"))


def test_processes_that_write_at_once_lose_nothing(store):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_put_many, args=(store.path, n)) for n in (0, 10, 20)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(HANG_S)
        assert writer.exitcode == 0
        writer.close()
    assert [d.name for d in store.list()] == [f"m{n:02}" for n in range(30)]
    assert len(json.loads(store.path.read_text())["deployments"]) == 30


# --- deploying ------------------------------------------------------------------------


def deployer(journal, name, answer):
    """A deployer that notes what is asked of it and answers, or raises, the same each time."""

    class Deployer:
        def _answer(self, hook, about):
            journal.note((name, hook, about.name))
            if isinstance(answer, BaseException):
                raise answer
            return answer

        @hookimpl
        def linnix_deploy(self, spec):
            return self._answer("deploy", spec)

        @hookimpl
        def linnix_probe(self, deployment):
            return self._answer("probe", deployment)

        @hookimpl
        def linnix_undeploy(self, deployment):
            return self._answer("undeploy", deployment)

    return Deployer


@pytest.fixture
def open_deployers(make_host, journal):
    """A host in which deployers run, in the order of the answers that are given."""

    def opened(**answers):
        host = make_host(
            {f"deployers.{name}": deployer(journal, name, a) for name, a in answers.items()}
        )
        for name in answers:
            host.open("deployers", name)
        return host

    return opened


def test_the_first_deployer_that_takes_a_model_has_it_and_it_is_remembered(
    open_deployers, store, journal
):
    host = open_deployers(near=None, far=deployment(deployer="whatever it says"), last=deployment())
    made = deploy(host, store, SPEC)
    assert made.deployer == "far"  # under the name by which it will be found again
    assert made.created_ns > 0
    assert store.get("small") == made
    assert journal.entries == [("near", "deploy", "small"), ("far", "deploy", "small")]


def test_the_time_that_a_deployer_gives_is_kept(open_deployers, store):
    assert deploy(open_deployers(near=deployment(created_ns=7)), store, SPEC).created_ns == 7


def test_what_a_deployer_says_for_people_arrives_as_it_is(open_deployers, store):
    refused = LinnixError("the disk of the node is full", hint="remove a model there")
    with pytest.raises(LinnixError, match=r"^the disk of the node is full$") as error:
        deploy(open_deployers(near=refused), store, SPEC)
    assert error.value.hint == "remove a model there"


def test_an_exception_does_not_fall_through(open_deployers, store, journal):
    host = open_deployers(near=RuntimeError("no room on the GPU"), far=deployment())
    with pytest.raises(CallFailed, match="linnix_deploy: RuntimeError: no room on the GPU"):
        deploy(host, store, SPEC)
    assert journal.entries == [("near", "deploy", "small")]
    assert store.list() == []


def test_a_model_that_nobody_takes_is_an_error(open_deployers, store):
    with pytest.raises(LinnixError, match=r"no deployer takes 'small' \(gguf\)"):
        deploy(open_deployers(near=None), store, SPEC)
    with pytest.raises(LinnixError, match="no deployer takes 'small'"):
        deploy(open_deployers(), store, SPEC)


def test_an_answer_of_another_type_is_an_error(open_deployers, store):
    with pytest.raises(LinnixError, match=r"deployers\.near returned str, not Deployment"):
        deploy(open_deployers(near="http://127.0.0.1:8080"), store, SPEC)
    assert store.list() == []


def test_only_its_own_deployer_is_asked_to_probe_and_undeploy(open_deployers, store, journal):
    host = open_deployers(near=Health("ok", "answers"), far=Health("failed"))
    store.put(deployment(deployer="near"))
    assert probe(host, store.get("small")) == Health("ok", "answers")
    undeploy(host, store, "small")
    assert journal.entries == [("near", "probe", "small"), ("near", "undeploy", "small")]
    assert store.list() == []


def test_a_probe_that_says_nothing_is_degraded(open_deployers):
    assert probe(open_deployers(near=None), deployment()) == Health("degraded", "cannot be probed")


def test_what_could_not_be_undeployed_is_not_forgotten(open_deployers, store):
    store.put(deployment())
    with pytest.raises(CallFailed, match="linnix_undeploy: OSError: busy"):
        undeploy(open_deployers(near=OSError("busy")), store, "small")
    assert store.get("small") is not None


def test_undeploying_what_is_not_there_is_an_error(open_deployers, store):
    with pytest.raises(LinnixError, match="there is no deployment called 'small'"):
        undeploy(open_deployers(near=None), store, "small")


def test_without_its_deployer_a_deployment_stays_and_the_error_names_what_to_install(
    open_deployers, store
):
    store.put(deployment(deployer="vllm"))
    host = open_deployers(near=None)
    for touch in (lambda: probe(host, store.get("small")), lambda: undeploy(host, store, "small")):
        with pytest.raises(LinnixError, match="was deployed by vllm, which does not run") as error:
            touch()
        assert error.value.hint == "pip install linnix-plugin-vllm"
    assert store.get("small") is not None


def test_a_deployer_that_hangs_is_given_up(make_host, store, forever, monkeypatch):
    class Hangs:
        @hookimpl
        def linnix_deploy(self, spec):
            forever.wait()

    monkeypatch.setattr(deployments_module, "DEPLOY_TIMEOUT_S", 0.01)
    host = make_host({"deployers.hangs": Hangs})
    host.open("deployers", "hangs")
    with pytest.raises(CallFailed, match=r"linnix_deploy: TimeoutError: no answer within 0\.01 s"):
        deploy(host, store, SPEC)


def test_deploying_again_asks_the_deployer_that_serves_the_name(open_deployers, store, journal):
    store.put(deployment(deployer="far"))
    moved = attrs.evolve(deployment(), endpoint="http://127.0.0.1:9090/v1")
    deploy(open_deployers(near=deployment(), far=moved), store, SPEC)
    assert journal.entries == [("far", "deploy", "small")]
    assert [(d.deployer, d.endpoint) for d in store.list()] == [("far", moved.endpoint)]


def test_a_name_that_another_deployer_serves_is_not_taken_from_it(open_deployers, store, journal):
    store.put(deployment(deployer="far"))
    with pytest.raises(LinnixError, match="'small' is deployed by far, which does not take this"):
        deploy(open_deployers(near=deployment()), store, SPEC)
    assert journal.entries == []
    assert store.get("small").deployer == "far"


def test_a_deployment_has_the_name_that_was_asked_for(open_deployers, store):
    made = deploy(open_deployers(near=deployment("small.gguf-4711")), store, SPEC)
    assert made.name == "small"
    assert [d.name for d in store.list()] == ["small"]


def test_what_cannot_be_remembered_is_taken_down_again(open_deployers, store, journal):
    host = open_deployers(near=deployment(details={"process": object()}))
    with pytest.raises(LinnixError, match=r"deployers\.near served 'small', but .*; undone"):
        deploy(host, store, SPEC)
    assert journal.entries == [("near", "deploy", "small"), ("near", "undeploy", "small")]
    assert store.list() == []
