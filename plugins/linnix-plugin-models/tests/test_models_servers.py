"""A server outlives the command that started it, and is found, looked after and ended later.

The servers here are small scripts; each listens, says where, and does what its test is about.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import attrs
import pytest

from linnix_core import LinnixError
from linnix_core.testing.waiting import eventually
from linnix_plugin_models import systemd
from linnix_plugin_models.server_state import Launch, ProcessId, Server, write_state
from linnix_plugin_models.servers import Servers
from linnix_plugin_models.supervisor import main as supervise

SERVER = """
import os, signal, socket, subprocess, sys, time
port, mode = int(sys.argv[1]), sys.argv[2]
if mode == "broken":
    print("no such model: \\x1b[2Joops")
    sys.exit(3)
if mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if mode == "parent":
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    sys.stdout.write(f"child {child.pid}\\n")
if mode == "chatty":
    for number in range(20000):
        print("a line of what servers say", number)
with socket.create_server(("127.0.0.1", port)) as listening:
    sys.stdout.write(f"listening {os.environ.get('KEY', '')} {os.environ.get('PLAIN', '')}\\n")
    while True:
        listening.accept()[0].close()
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "server.py"
    path.write_text(SERVER)
    return path


@pytest.fixture
def servers(tmp_path):
    made = Servers(tmp_path / "servers")
    yield made
    for server in made.list():
        made.stop(server.name)


@pytest.fixture
def start(servers, script):
    def begin(name="one", mode="", *, port=0, **launch):
        return servers.start(name, lambda p: command_of(script, p, mode), port=port, **launch)

    return begin


def command_of(script, port, mode=""):
    return [sys.executable, "-u", str(script), str(port), mode]


def connects(port):
    with socket.socket() as client:
        client.settimeout(5)
        return client.connect_ex(("127.0.0.1", port)) == 0


def listening(server):
    eventually(lambda: connects(server.launch.port))
    return server


def logged(servers, text, name="one"):
    path = servers.log_path(name)
    return eventually(
        lambda: path.read_text() if path.exists() else "", lambda written: text in written
    )


# --- living on ------------------------------------------------------------------------


def test_it_outlives_the_command_that_started_it(servers, script, tmp_path):
    code = (
        "import sys; from pathlib import Path; from linnix_plugin_models.servers import Servers;"
        "s = Servers(Path(sys.argv[1])).start('one', lambda p: [sys.executable, sys.argv[2],"
        " str(p), ''], port=0); print(s.supervisor.pid)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "servers"), str(script)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = listening(servers.find("one"))
    assert found.supervisor.pid == int(said.stdout)
    assert servers.find("one").runs
    # Not in the session of who started it, and each in a group of its own.
    assert os.getsid(found.supervisor.pid) != os.getsid(0)
    assert os.getpgid(found.process.pid) == found.process.pid


def test_the_same_is_found_and_another_takes_its_place(start, servers):
    first = listening(start(details={"digest": "sha256:1"}))
    again = start(details={"digest": "sha256:1"})
    assert (again.process, again.launch.port) == (first.process, first.launch.port)
    other = listening(start(details={"digest": "sha256:2"}))
    assert not first.process.is_alive
    assert other.launch.port == first.launch.port
    assert [server.launch.details for server in servers.list()] == [{"digest": "sha256:2"}]


@pytest.mark.parametrize(
    "changed",
    [
        {"mode": "stubborn", "stop_s": 0.1},
        {"environment": {"PLAIN": "x"}},
        {"secrets": {"KEY": "b"}},
    ],
    ids=["command", "environment", "key"],
)
def test_a_changed_server_is_another_one(start, changed):
    before = start(secrets={"KEY": "a"})
    after = start(**{"secrets": {"KEY": "a"}, **changed})
    assert after.process != before.process
    assert not before.process.is_alive


def test_several_are_told_apart_whatever_they_are_called(start, servers):
    names = ["a", "a b/c:1", "a.b", "é%"]
    ports = {start(name).launch.port for name in names}
    assert len(ports) == 4
    assert {server.name for server in servers.list()} == set(names)
    servers.stop("a")
    assert {server.name for server in servers.list()} == set(names) - {"a"}


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "x" * 300])
def test_a_name_that_is_no_file_is_refused(start, name):
    with pytest.raises(LinnixError, match="cannot be the name of a server"):
        start(name)


def test_two_that_start_it_at_once_have_one(start, servers):
    found = []
    threads = [threading.Thread(target=lambda: found.append(start())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({server.process for server in found}) == 1


# --- looking after it -----------------------------------------------------------------


def test_it_is_started_again_when_it_ends(start, servers):
    first = listening(start())
    logged(servers, "listening")
    first.process.send(signal.SIGKILL)
    again = eventually(lambda: servers.find("one"), lambda now: now.restarts and now.runs)
    assert again.process != first.process
    assert again.reason == "was ended by SIGKILL: listening"
    listening(again)


def test_it_is_given_up_with_a_reason(start, servers):
    start(mode="broken", restarts=1)
    given_up = eventually(lambda: servers.find("one"), lambda now: now.status == "failed")
    assert given_up.reason == "ended with exit code 3: no such model: \\x1b[2Joops"
    assert given_up.restarts == 1
    assert given_up.supervisor.wait(30)
    # And is tried anew when somebody asks for it anew.
    assert start(mode="broken", restarts=1).supervisor != given_up.supervisor


def test_a_program_that_is_not_there_is_a_reason(servers):
    servers.start("one", lambda _port: ["/nonexistent/llama-server"], port=0, restarts=0)
    failed = eventually(lambda: servers.find("one"), lambda now: now.status == "failed")
    assert "cannot be started: [Errno 2] No such file or directory" in failed.reason


def test_what_it_says_is_kept_within_bounds(start, servers):
    start(mode="chatty", log_bytes=50_000)
    said = logged(servers, "listening")
    assert len(said) <= 50_000
    assert "say 19999" in said
    assert "say 17\n" not in said


def test_what_it_began_ends_with_it(start, servers):
    server = start(mode="parent")
    child = ProcessId.of(int(logged(servers, "child").split()[1]))
    server.process.send(signal.SIGKILL)
    assert child.wait(30)


def test_what_could_not_be_written_is_written_later(start, servers, script, tmp_path):
    first = listening(start())
    in_the_way = tmp_path / "servers" / ".writing-one.json"  # as good as a full disk
    in_the_way.mkdir()
    first.process.send(signal.SIGKILL)
    assert first.process.wait(30)
    eventually(lambda: running(script))
    assert servers.find("one").process == first.process
    in_the_way.rmdir()
    again = eventually(lambda: servers.find("one"), lambda now: now.runs)
    assert [str(again.process.pid)] == running(script)
    assert again.restarts == 1


# --- ending it ------------------------------------------------------------------------


def test_ending_it_leaves_nothing(start, servers, tmp_path):
    server = listening(start())
    servers.stop("one")
    assert not server.process.is_alive
    assert not server.supervisor.is_alive
    assert not connects(server.launch.port)
    assert [path.name for path in (tmp_path / "servers").iterdir()] == [".lock"]
    servers.stop("one")
    servers.stop("never there")


def test_what_does_not_end_is_made_to(start, servers):
    server = start(mode="stubborn", stop_s=0.2)
    logged(servers, "listening")
    servers.stop("one")
    assert not server.process.is_alive


def test_the_log_of_what_failed_can_be_kept(start, servers):
    start(mode="broken")
    logged(servers, "no such model")
    servers.stop("one", keep_log=True)
    assert "no such model" in servers.log_path("one").read_text()
    assert servers.list() == []


def test_who_got_the_number_later_is_left_alone(servers, tmp_path):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as bystander:
        theirs = ProcessId.of(bystander.pid)
        earlier = ProcessId(theirs.pid, theirs.start + "0")
        (tmp_path / "servers").mkdir()
        write_state(
            tmp_path / "servers" / "one.json",
            Server(name="one", launch=Launch(command=("x",)), supervisor=earlier, process=earlier),
        )
        assert not servers.find("one").is_supervised
        servers.stop("one")
        assert servers.find("one") is None
        assert theirs.is_alive
        bystander.communicate()
    assert not theirs.is_alive


def test_who_got_the_number_of_its_session_later_is_left_alone(servers, tmp_path):
    code = (
        "import os, sys, time\nif os.fork():\n    sys.stdin.read()\n"
        "else:\n    print(os.getpid(), flush=True)\n    time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
    ) as leader:  # fmt: skip
        left = ProcessId.of(int(leader.stdout.readline()))
        process = ProcessId.of(leader.pid)
        leader.stdin.close()
        assert leader.wait(30) == 0
        (tmp_path / "servers").mkdir()
        path = tmp_path / "servers" / "one.json"
        server = Server(name="one", launch=Launch(command=("x",)), process=process)
        theirs = f"pipe:[{os.fstat(leader.stdout.fileno()).st_ino}]"
        try:
            write_state(path, attrs.evolve(server, output="pipe:[0]"))
            servers.stop("one")
            assert left.is_alive
            # It is told from one of its own by nothing else.
            write_state(path, attrs.evolve(server, output=theirs))
            servers.stop("one")
            assert left.wait(30)
        finally:
            left.send(signal.SIGKILL)


# --- killed at any moment -------------------------------------------------------------


class Killed(BaseException):
    """Nothing is done after this, but what the system does."""


@pytest.mark.parametrize("suffix", [".env", ".log", ".lock", ".json"])
def test_who_is_killed_while_it_forgets_a_server_leaves_it_to_be_found(
    start, servers, tmp_path, monkeypatch, suffix
):
    listening(start())
    folder = tmp_path / "servers"
    (folder / "one.env").touch()
    unlink = Path.unlink

    def killed(path, **keys):
        unlink(path, **keys)
        if path.name == f"one{suffix}":
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", killed)
        with pytest.raises(Killed):
            servers.stop("one")
    assert (folder / "one.json").exists() == (suffix != ".json")
    servers.stop("one")
    assert [path.name for path in folder.iterdir()] == [".lock"]


def test_what_was_half_written_goes_with_the_server(start, servers, tmp_path):
    start()
    for suffix in (".env", ".json"):
        (tmp_path / "servers" / f".writing-one{suffix}").write_text("KEY=hunter2-key")
    servers.stop("one")
    assert [path.name for path in (tmp_path / "servers").iterdir()] == [".lock"]


def test_without_its_supervisor_it_ends_and_can_be_had_again(start, servers):
    first = listening(start())
    first.supervisor.send(signal.SIGKILL)
    assert first.process.wait(30)
    assert not servers.find("one").is_supervised
    again = start()
    assert again.launch.port == first.launch.port
    assert listening(again).runs


def test_what_a_killed_supervisor_leaves_is_ended_later(start, servers):
    server = start(mode="parent")
    child = ProcessId.of(int(logged(servers, "child").split()[1]))
    server.supervisor.send(signal.SIGKILL)
    assert server.process.wait(30)
    assert child.is_alive
    servers.stop("one")
    assert child.wait(30)


@pytest.mark.parametrize("delay", [0.0, 0.1, 0.2, 0.3, 0.4, 0.6])
def test_a_command_that_was_killed_is_just_repeated(servers, start, script, tmp_path, delay):
    code = (
        "import sys; from pathlib import Path; from linnix_plugin_models.servers import Servers;"
        "print(flush=True); Servers(Path(sys.argv[1])).start('one', lambda p: [sys.executable,"
        " '-u', sys.argv[2], str(p), ''], port=0)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "servers"), str(script)],
        stdout=subprocess.PIPE,
    ) as command:
        command.stdout.read(1)
        time.sleep(delay)
        command.kill()
    server = listening(start())
    assert server.runs
    assert len(running(script)) == 1
    servers.stop("one")
    assert running(script) == []


def running(script):
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if str(script).encode() in (folder / "cmdline").read_bytes():
                found.append(folder.name)
        except OSError:
            continue
    return found


def test_a_supervisor_that_comes_too_late_does_nothing(tmp_path, servers, start):
    path = tmp_path / "gone.json"
    assert supervise([str(path), "--foreground"]) == 0
    assert not path.with_suffix(".lock").exists()
    # And a second one leaves the first alone.
    server = start()
    state = tmp_path / "servers" / "one.json"
    assert supervise([str(state), "--foreground"]) == 0
    assert servers.find("one").supervisor == server.supervisor


def test_a_state_that_cannot_be_read_is_left_alone(servers, start, tmp_path):
    (tmp_path / "servers").mkdir()
    path = tmp_path / "servers" / "one.json"
    path.write_text('{"name": "one"')
    for do in (lambda: servers.find("one"), servers.list, start, lambda: servers.stop("one")):
        with pytest.raises(LinnixError, match="cannot be read as the state of a server"):
            do()
    path.unlink()


# --- ports and secrets ----------------------------------------------------------------


def test_who_has_the_port_is_told(start, servers):
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        port = foreign.getsockname()[1]
        with pytest.raises(
            LinnixError, match=rf"port {port} is taken by .* \(pid {os.getpid()}\)"
        ) as told:
            start(port=port)
        assert "port=N" in told.value.hint
    assert servers.list() == []
    ours = listening(start("first"))
    with pytest.raises(LinnixError, match="is taken by the deployment first"):
        start("second", port=ours.launch.port)


def test_a_port_that_is_taken_costs_nobody_the_server_that_runs(start, servers):
    server = start()
    with socket.create_server(("127.0.0.1", 0)) as foreign, pytest.raises(LinnixError):
        start(port=foreign.getsockname()[1])
    assert servers.find("one").process == server.process


def test_keys_reach_the_server_and_no_file(start, servers, tmp_path):
    start(secrets={"KEY": "hunter2-key"}, environment={"PLAIN": "plain"})
    said = logged(servers, "listening")
    assert said.split() == ["listening", "hunter2-key", "plain"]
    for path in (tmp_path / "servers").iterdir():
        assert path.stat().st_mode & 0o077 == 0, path
        if path.suffix != ".log":
            assert "hunter2" not in path.read_text()
    assert (tmp_path / "servers").stat().st_mode & 0o077 == 0


# --- systemd --------------------------------------------------------------------------

SYSTEMCTL = """#!{python}
import os, shlex, signal, subprocess, sys
from pathlib import Path
assert sys.argv[1] == "--user"
verb, units = sys.argv[2], Path(os.environ["XDG_CONFIG_HOME"]) / "systemd" / "user"
with open(os.environ["XDG_CONFIG_HOME"] + "/told", "a") as told:
    print(verb, file=told)
if verb == "daemon-reload":
    sys.exit(os.path.exists(os.environ["XDG_CONFIG_HOME"] + "/no-bus"))
unit = units / sys.argv[-1]
told = dict(line.split("=", 1) for line in unit.read_text().splitlines() if "=" in line)
pid = units / "pid"
if verb == "enable":
    command = shlex.split(told["ExecStart"].replace("%%", "%"))
    text = Path(told["EnvironmentFile"].replace("%%", "%")).read_text()
    more = shlex.split(text.replace("\\\\$", "$"))  # which a shell takes for a plain one as well
    env = {{**os.environ, **dict(line.split("=", 1) for line in more)}}
    null = subprocess.DEVNULL
    begun = subprocess.Popen(command, env=env, start_new_session=True, stdout=null, stderr=null)
    pid.write_text(str(begun.pid))
    sys.exit(os.path.exists(os.environ["XDG_CONFIG_HOME"] + "/no-job"))
elif verb == "disable":
    os.kill(int(pid.read_text()), signal.SIGTERM)
"""


@pytest.fixture
def user_systemd(tmp_path, monkeypatch):
    """A stand-in for ``systemctl --user`` that runs what the unit says."""
    program = tmp_path / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(SYSTEMCTL.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config"


def test_systemd_looks_after_the_supervisor(start, servers, user_systemd):
    key = 'a "quoted" $key'
    server = listening(start("a b%", systemd=True, secrets={"KEY": key}))
    (unit,) = (user_systemd / "systemd" / "user").glob("linnix-server-*.service")
    assert unit.name == "linnix-server-a\\x20b\\x25.service"
    assert key in logged(servers, "listening", "a b%")
    assert start("a b%", systemd=True, secrets={"KEY": key}).process == server.process
    servers.stop("a b%")
    assert not server.supervisor.is_alive
    assert not unit.exists()


def test_without_systemd_that_is_said_and_nothing_is_left(
    start, servers, user_systemd, monkeypatch, script
):
    user_systemd.mkdir()
    (user_systemd / "no-bus").touch()
    with pytest.raises(LinnixError, match="systemctl --user daemon-reload failed"):
        start(systemd=True)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(LinnixError, match="systemctl is not here") as told:
        start(systemd=True)
    assert "leave systemd out" in told.value.hint
    assert servers.list() == []
    assert running(script) == []
    assert list(user_systemd.rglob("*.service")) == []


def test_a_unit_that_fails_to_start_is_taken_back(start, servers, user_systemd, script):
    user_systemd.mkdir()
    (user_systemd / "no-job").touch()
    with pytest.raises(LinnixError, match="systemctl --user enable failed"):
        start(systemd=True)
    said = (user_systemd / "told").read_text().split()
    assert said == ["daemon-reload", "enable", "disable", "daemon-reload"]
    assert servers.list() == []
    assert running(script) == []
    assert list(user_systemd.rglob("*.service")) == []


@pytest.mark.parametrize("suffix", [".json", ".env", ".service"])
def test_a_full_disk_leaves_nothing(start, servers, user_systemd, tmp_path, monkeypatch, suffix):
    fsync = os.fsync

    def full(descriptor):
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith(suffix):
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(LinnixError, match=r"cannot be written: .* No space left"):
            start(systemd=True, secrets={"KEY": "hunter2-key"})
    assert [path.name for path in (tmp_path / "servers").iterdir()] == [".lock"]
    assert list(user_systemd.rglob("*.service")) == []
    assert listening(start(systemd=True, secrets={"KEY": "hunter2-key"})).runs


def test_a_name_is_one_of_a_unit_or_refused(start, servers, user_systemd):
    assert systemd.unit_path("a~b").name == "linnix-server-a\\x7Eb.service"
    name = "é" * 30  # of which systemd has eight characters each
    before = start(name)
    with pytest.raises(LinnixError, match="is too long for the name of a unit") as told:
        start(name, systemd=True)
    assert "leave systemd out" in told.value.hint
    assert servers.find(name) == before
    assert before.process.is_alive


def test_the_unit_is_one_that_systemd_reads(tmp_path):
    command = [sys.executable, "-c", 'x = "a b" + \'$HOME\' + "%h"', str(tmp_path / "a%b $c.json")]
    text = systemd.unit_text("a\nb", command, tmp_path / "a%b.env")
    assert "Description=Linnix: the model server a\\x0ab\n" in text
    assert '"x = \\"a b\\" + \'$$HOME\' + \\"%%h\\""' in text
    assert f'"{tmp_path}/a%%b $$c.json" "--foreground"' in text
    assert "\nRestartPreventExitStatus=1\n" in text
    if analyze := shutil.which("systemd-analyze"):
        unit = tmp_path / "linnix-server-x.service"
        unit.write_text(text)
        done = subprocess.run(
            [analyze, "verify", "--user", "--man=no", str(unit)],
            capture_output=True, text=True, check=False,
            env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        )  # fmt: skip
        assert "linnix-server-x" not in done.stderr, done.stderr


def test_the_unit_of_another_is_left_alone(start, user_systemd):
    unit = systemd.unit_path("one")
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]\nExecStart=/bin/true\n")
    with pytest.raises(LinnixError, match="is the unit of another server"):
        start(systemd=True)
    assert "/bin/true" in unit.read_text()


def test_the_state_says_what_runs(start, tmp_path):
    server = start(details={"model_id": "m", "digest": "sha256:1"})
    said = json.loads((tmp_path / "servers" / "one.json").read_text())
    assert said["supervisor"]["pid"] == server.supervisor.pid
    assert said["process"] == {"pid": server.process.pid, "start": server.process.start}
    assert said["launch"]["port"] == server.launch.port
    assert said["launch"]["command"][0] == sys.executable
    assert said["launch"]["details"] == {"model_id": "m", "digest": "sha256:1"}
    assert (said["restarts"], said["reason"]) == (0, "")
