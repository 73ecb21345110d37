"""Servers are real processes: started once, found again, checked, ended, never mistaken."""

import json
import os
import signal
import subprocess
import sys
import threading

import attrs
import pytest

from linnix_core import ModelSpec, PluginUnavailable
from linnix_plugin_parrot import processes
from linnix_plugin_parrot.client import ask
from linnix_plugin_parrot.model import digest_of, read_model
from linnix_plugin_parrot.processes import start_identity

QUESTION = {"class": "fork_storm", "processes": ["P1"], "facts": ["F1", "F2", "F3"], "actions": []}


def pid_of(deployment):
    return deployment.details["pid"]


@pytest.fixture
def bystander():
    """A process that has nothing to do with us, until the end of the test."""
    command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        yield process
        process.stdin.close()


def kill(deployment):
    """End the server behind its deployer's back, and wait until it is gone."""
    pidfd = os.pidfd_open(pid_of(deployment))
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        assert processes._ended(pidfd, 60)
    finally:
        os.close(pidfd)


def remember(deployer, **changes):
    """Change what the state file says."""
    file = deployer._file
    (entry,) = json.loads(file.read_bytes())
    file.write_text(json.dumps([{**entry, **changes}]))


def test_a_deployed_model_answers(deployer, spec, model_file):
    deployment = deployer.linnix_deploy(spec)

    assert deployment.digest == digest_of(model_file.read_bytes())
    reply = ask(deployment.endpoint, QUESTION, 60)
    assert reply["answer"] == {
        "class": "fork_storm",
        "confidence": 80,
        "process": "P1",
        "facts": ["F1", "F2"],
        "actions": [],
    }
    assert deployer.linnix_probe(deployment).status == "ok"


def test_a_class_it_never_heard_of_has_no_answer(deployer, spec):
    deployment = deployer.linnix_deploy(spec)
    assert ask(deployment.endpoint, {**QUESTION, "class": "oom_risk"}, 60)["answer"] is None


@pytest.mark.parametrize(
    "question", [{}, [], None, {**QUESTION, "facts": 5}, {**QUESTION, "processes": None}]
)
def test_a_malformed_question_does_not_end_the_server(deployer, spec, question):
    deployment = deployer.linnix_deploy(spec)
    with pytest.raises(ValueError, match="status 400"):
        ask(deployment.endpoint, question, 60)
    assert deployer.linnix_probe(deployment).status == "ok"


def test_the_server_belongs_to_no_session_of_ours(deployer, spec):
    pid = pid_of(deployer.linnix_deploy(spec))
    assert os.getsid(pid) == pid
    assert os.readlink(f"/proc/{pid}/cwd") == "/"


def test_another_command_finds_the_server(make_deployer, spec):
    first = make_deployer().linnix_deploy(spec)
    assert make_deployer().linnix_deploy(spec) == first


def test_two_commands_at_once_start_one_server(make_deployer, spec):
    made = []
    threads = [
        threading.Thread(target=lambda: made.append(make_deployer().linnix_deploy(spec)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert made == [made[0]] * 3


def test_a_changed_file_is_another_model(deployer, spec, model_file):
    old = deployer.linnix_deploy(spec)
    model_file.write_text('{"cpu_spin": {"confidence": 1, "facts": 1}}')
    new = deployer.linnix_deploy(spec)

    assert new.digest == digest_of(model_file.read_bytes()) != old.digest
    assert start_identity(pid_of(old)) is None
    assert deployer.linnix_deployments() == [new]


def test_two_names_are_two_servers(deployer, spec):
    one = deployer.linnix_deploy(spec)
    two = deployer.linnix_deploy(attrs.evolve(spec, name="other"))
    deployer.linnix_undeploy(one)

    assert start_identity(pid_of(one)) is None
    assert deployer.linnix_deployments() == [two]


def test_a_server_that_died_is_not_listed_and_is_started_again(deployer, spec):
    old = deployer.linnix_deploy(spec)
    kill(old)

    assert deployer.linnix_deployments() == []
    assert deployer.linnix_probe(old).status == "failed"
    new = deployer.linnix_deploy(spec)
    assert deployer.linnix_probe(new).status == "ok"


def test_undeploying_what_died_ends_nothing(deployer, spec):
    deployment = deployer.linnix_deploy(spec)
    kill(deployment)
    deployer.linnix_undeploy(deployment)
    assert deployer.linnix_deployments() == []


def test_a_stranger_with_the_same_pid_lives_on(deployer, spec, bystander):
    deployment = deployer.linnix_deploy(spec)
    kill(deployment)
    remember(deployer, pid=bystander.pid)

    assert deployer.linnix_deployments() == []
    deployer.linnix_undeploy(deployment)
    assert bystander.poll() is None


def test_a_stranger_at_the_endpoint_is_not_taken_for_the_server(deployer, spec, serve):
    old = deployer.linnix_deploy(spec)
    remember(deployer, endpoint=serve(b'{"digest": "of another model", "answer": null}'))

    assert "another model" in deployer.linnix_probe(old).reason
    new = deployer.linnix_deploy(spec)
    assert start_identity(pid_of(old)) is None
    assert deployer.linnix_probe(new).status == "ok"


def test_a_process_that_ignores_the_polite_signal_is_ended(bystander, monkeypatch):
    monkeypatch.setattr(processes, "TERM_S", 0)
    os.kill(bystander.pid, signal.SIGSTOP)
    # Before it has really stopped, the polite signal would still reach it.
    os.waitid(os.P_PID, bystander.pid, os.WSTOPPED | os.WNOWAIT)
    processes.end(bystander.pid, start_identity(bystander.pid))
    assert bystander.wait(60) == -signal.SIGKILL


def test_a_process_that_was_not_waited_for_does_not_run(bystander):
    os.kill(bystander.pid, signal.SIGKILL)
    os.waitid(os.P_PID, bystander.pid, os.WEXITED | os.WNOWAIT)
    assert start_identity(bystander.pid) is None


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "is no JSON"),
        ("[]", "is no table"),
        ('{"cpu_spin": 5}', "must have the keys"),
        ('{"cpu_spin": {"confidence": 101, "facts": 1}}', "0 to 100"),
        ('{"cpu_spin": {"confidence": true, "facts": 1}}', "0 to 100"),
        ('{"cpu_spin": {"confidence": 50, "facts": -1}}', "the facts of cpu_spin"),
    ],
)
def test_a_wrong_model_is_refused_with_the_reason(tmp_path, content, complaint):
    file = tmp_path / "wrong.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=complaint):
        read_model(file)


def test_why_a_server_did_not_start_is_told(deployer, tmp_path):
    file = tmp_path / "wrong.json"
    file.write_text("[]")
    with pytest.raises(PluginUnavailable, match="is no table of classes"):
        deployer.linnix_deploy(ModelSpec(name="wrong", path=str(file), format="parrot"))
    assert deployer.linnix_deployments() == []


def test_a_missing_file_is_told(deployer, tmp_path):
    with pytest.raises(PluginUnavailable, match="No such file"):
        deployer.linnix_deploy(ModelSpec("gone", str(tmp_path / "gone.json"), format="parrot"))


def test_a_module_in_the_working_directory_is_not_run(deployer, spec, tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit('not me')")
    monkeypatch.chdir(tmp_path)
    deployer.linnix_deploy(spec)
