"""A run that was started as root gives up its privileges once everything runs.

All through real processes; what they are allowed is read from the kernel, thread by thread.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from linnix_core import privileges
from linnix_core.errors import ConfigError
from linnix_core.testing.distributions import write_distribution
from linnix_core.testing.waiting import eventually

PLUGINS = '''
import json
import threading
from pathlib import Path

import attrs

from linnix_core import ProcessEvent, hookimpl


class Beats:
    """Collect events until the end."""

    def __init__(self, config, context):
        pass

    @hookimpl
    def linnix_collect(self, sink, stop):
        pid = 0
        while not stop.wait(0.005):
            sink.emit_many(
                [ProcessEvent("exec", pid + more, 0, args=("x" * 400,)) for more in range(64)]
            )
            pid += 64


class Tells:
    """Print once what became of the privileges."""

    def __init__(self, config, context):
        self.context = context
        self.told = False

    @hookimpl
    def linnix_handle(self, batch):
        if not self.told:
            self.told = True
            found = [s for s in self.context.components() if s.kind == "agent"]
            print(json.dumps([attrs.asdict(status) for status in found]), flush=True)


class Quiet:
    def __init__(self, config, context):
        pass

    @hookimpl
    def linnix_handle(self, batch):
        pass


class Privileged(Quiet):
    """Cannot do without."""

    PRIVILEGES = "to keep a door open"


@attrs.frozen
class Paths:
    ARG = "source"

    source: Path | None = attrs.field(default=None, metadata={"help": "read later"})


class Reads(Quiet):
    Config = Paths


class Keeps:
    """Add a line to a file of its own with every batch."""

    def __init__(self, config, context):
        self.context = context

    @hookimpl
    def linnix_handle(self, batch):
        with (self.context.data_dir / "beats").open("a") as file:
            file.write("beat\\n")


class Threaded(Quiet):
    """Has a thread of its own from the start."""

    def __init__(self, config, context):
        self.stop = context.stop

    @hookimpl
    def linnix_start(self):
        threading.Thread(target=self.stop.wait, name="its-own", daemon=True).start()


class Hangs(Quiet):
    """Never gets to run."""

    def __init__(self, config, context):
        self.stop = context.stop

    @hookimpl
    def linnix_start(self):
        self.stop.wait()
'''

HANDLERS = ("tells", "privileged", "reads", "keeps", "threaded", "hangs")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to give up")

NOBODY = privileges.find_account("nobody")


def closed_folders() -> dict[Path, set[str]]:
    """Folders that nobody may enter, each with what of it an interpreter needs."""
    modules = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    plugins = [find_spec(f"linnix_plugin_{name}") for name in ("jsonl", "rules", "sqlite")]
    modules += [spec.origin for spec in plugins if spec is not None]
    needed = [sys.executable, os.path.realpath(sys.executable), *filter(None, modules)]
    found: dict[Path, set[str]] = {}
    for path in map(Path, needed):
        for folder in reversed(path.parents):
            if folder.exists() and not folder.stat().st_mode & 0o001:
                found.setdefault(folder, set()).add(path.relative_to(folder).parts[0])
                break
    return found


def opened(aside: Path) -> list[str]:
    """What to put before a command so that the installation is within nobody's reach.

    In a mount namespace of its own: such a folder becomes an open one with the needed parts.
    """
    closed = closed_folders()
    if not closed:
        return []
    lines = ["set -e"]
    for folder, parts in closed.items():
        lines += [
            shlex.join(["mount", "--rbind", str(folder), str(aside)]),
            shlex.join(["mount", "-t", "tmpfs", "-o", "mode=0755", "none", str(folder)]),
        ]
        for part in sorted(parts):
            lines += [
                shlex.join(["mkdir", str(folder / part)]),
                shlex.join(["mount", "--rbind", str(aside / part), str(folder / part)]),
            ]
        lines.append(shlex.join(["umount", "-l", str(aside)]))
    prefix = ["unshare", "--mount", "--propagation", "private"]
    if subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("nobody cannot reach this Python, and mounting is not allowed")
    return [*prefix, "sh", "-c", "\n".join([*lines, 'exec "$@"']), "sh"]


class Run:
    """One `linnix run` until it is stopped."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def told(self) -> dict[str, Any] | None:
        """The entry of the privileges in the status; None where there is none."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            pytest.fail(self.stop())
        found = json.loads(line)
        assert len(found) <= 1
        return found[0] if found else None

    def threads(self) -> list[dict[str, str]]:
        found = []
        for status in Path(f"/proc/{self.process.pid}/task").glob("*/status"):
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                lines = status.read_text().splitlines()
                found.append(dict(line.split(":\t", 1) for line in lines if ":\t" in line))
        assert len(found) > 3  # main, pipeline, collector and handler at the least
        return found

    def of_threads(self, *keys: str) -> set[tuple[str, ...]]:
        """What the threads have under these keys, each combination once."""
        return {tuple(thread[key].strip() for key in keys) for thread in self.threads()}

    def stop(self) -> str:
        """Stop it in order; what it wrote to standard error."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.communicate(timeout=60)[1]


class World:
    """A folder that everybody may enter, with plugins in it, and runs of Linnix there."""

    def __init__(self, here: Path, runs: contextlib.ExitStack) -> None:
        self.here = here
        self.data = here / "data"
        (here / "aside").mkdir()
        self._prefix = opened(here / "aside")
        self._runs = runs
        self._distribution = write_distribution(
            here / "site",
            entry_points={
                "linnix.collectors": {"beats": "linnix_rights:Beats"},
                "linnix.handlers": {
                    name: f"linnix_rights:{name.capitalize()}" for name in HANDLERS
                },
            },
            modules={"linnix_rights.py": PLUGINS},
        )

    def folder(self, name: str, *, mode: int = 0o755, owner: int = 0) -> Path:
        made = self.here / name
        made.mkdir()
        made.chmod(mode)
        os.chown(made, owner, -1)
        return made

    def run(
        self,
        *handlers: str,
        keys: Sequence[str] = (),
        before: Sequence[str] = (),
        others: bool = False,
        **agent: Any,
    ) -> Run:
        """Run with these handlers, and ``agent`` as the table of that name.

        ``others`` are those of the configuration in this folder.
        """
        agent = {"data_dir": self.data, "user": "nobody", **agent}
        keys = [*keys, *(f"agent.{key}={value}" for key, value in agent.items() if value)]
        process = subprocess.Popen(
            [
                *self._prefix, *before,
                sys.executable, "-B", "-m", "linnix_core", "-v", "run",
                "--collector", "beats", *(() if others else ("--no-plugins",)),
                *(f"--handler={name}" for name in ("tells", *handlers)),
                *(f"--set={key}" for key in keys),
            ],
            cwd=self.here,
            env={"PYTHONPATH": str(self._distribution), "PATH": os.environ["PATH"]},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        self._runs.enter_context(process)
        self._runs.callback(process.kill)
        return Run(process)


@pytest.fixture
def world() -> Iterator[World]:
    # Not tmp_path: that is private.
    here = Path(tempfile.mkdtemp(prefix="linnix-", dir="/tmp"))
    here.chmod(0o755)
    try:
        with contextlib.ExitStack() as runs:
            yield World(here, runs)
    finally:
        # Fails where something is still mounted there, which must never be deleted.
        (here / "aside").rmdir()
        shutil.rmtree(here)


NO_CAPABILITIES = ("0" * 16,) * 5
SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
IDS = ("Uid", "Gid", "Groups")

#: The least that a file may hold before it rotates.
SMALL_FILES = ("handlers.jsonl.max_bytes=1MiB",)


def ids(account: privileges.Account) -> tuple[str, str, str]:
    return "\t".join([str(account.uid)] * 4), "\t".join([str(account.gid)] * 4), ""


# --- the whole way ------------------------------------------------------------------------


@needs_root
def test_every_thread_of_a_run_becomes_a_plain_account_without_capabilities(world):
    run = world.run()
    assert run.told() == {
        "component": "agent",
        "kind": "agent",
        "name": "privileges",
        "state": "running",
        "code": "dropped",
        "reason": "runs as nobody without capabilities",
        "hint": None,
        "plugin": "",
        "distribution": "",
        "version": "",
        "limits": [],
        "counters": {},
    }
    assert run.of_threads(*IDS) == {ids(NOBODY)}
    assert run.of_threads(*SETS) == {NO_CAPABILITIES}
    assert run.of_threads("NoNewPrivs") == {("1",)}
    said = run.stop()
    assert run.process.returncode == 0, said
    assert "info: privileges: runs as nobody without capabilities" in said


@needs_root
def test_user_names_the_account(world):
    account = privileges.find_account("daemon")
    run = world.run(user="daemon")
    assert run.told()["reason"] == "runs as daemon without capabilities"
    assert run.of_threads(*IDS) == {ids(account)}


@needs_root
def test_without_a_name_it_is_the_default_account(world):
    run = world.run(user=None)
    assert run.told()["code"] == "dropped"
    assert run.of_threads(*IDS) == {ids(privileges.find_account())}


@needs_root
def test_supplementary_groups_are_left(world):
    assert shutil.which("setpriv")
    run = world.run(before=["setpriv", "--groups", "1,2,3"])
    assert run.told()["code"] == "dropped"
    assert run.of_threads("Groups") == {("",)}


@needs_root
def test_a_thread_that_a_plugin_has_from_the_start_is_no_more_privileged(world):
    run = world.run("threaded")
    assert run.told()["code"] == "dropped"
    # The bounding set is its own; no_new_privs keeps it from ever counting.
    assert run.of_threads("Uid", "CapPrm", "CapEff", "NoNewPrivs") == {
        (ids(NOBODY)[0], "0" * 16, "0" * 16, "1")
    }


@needs_root
def test_records_flow_and_files_rotate_afterwards(world):
    logs = world.folder("logs", owner=NOBODY.uid)
    run = world.run(f"jsonl:{logs}/e.jsonl", keys=SMALL_FILES)
    assert run.told()["code"] == "dropped"
    eventually(lambda: len(list(logs.iterdir())) > 3, said=run.stop)
    assert {path.stat().st_uid for path in logs.iterdir()} == {NOBODY.uid}
    assert {path.stat().st_mode & 0o777 for path in logs.iterdir()} == {0o600}
    run.stop()
    lines = [line for path in logs.iterdir() for line in path.read_text().splitlines()]
    assert {json.loads(line)["type"] for line in lines} == {"event"}


@needs_root
def test_a_file_that_was_written_as_the_account_is_continued_by_the_next_run(world):
    logs = world.folder("logs", owner=NOBODY.uid)
    file = logs / "e.jsonl"
    sizes = [0]
    for _ in range(2):
        run = world.run(f"jsonl:{file}")
        assert run.told()["code"] == "dropped"
        eventually(lambda: file.stat().st_size > sizes[-1] + 1000)
        assert file.stat().st_uid == NOBODY.uid
        assert run.stop()
        assert run.process.returncode == 0
        sizes.append(file.stat().st_size)
    assert [path.name for path in logs.iterdir()] == ["e.jsonl"]


RULES = """
rules:
  - name: {name}
    severity: low
    detector: fork_burst
    threshold: 500
    window_seconds: 1
"""


@needs_root
def test_a_file_of_rules_is_read_again_afterwards(world):
    logs = world.folder("logs", owner=NOBODY.uid)
    rules, changed = world.here / "rules.yaml", world.here / "changed.yaml"
    rules.write_text(RULES.format(name="one"))
    run = world.run(f"rules:{rules}", f"jsonl:{logs}/e.jsonl")
    assert run.told()["code"] == "dropped"
    changed.write_text(RULES.format(name="other"))
    changed.replace(rules)
    size = (logs / "e.jsonl").stat().st_size
    # It looks once a second, with the records of that second.
    eventually(lambda: (logs / "e.jsonl").stat().st_size > size + (30 << 20))
    assert "was read again: 1 rules, 0 of them as before" in run.stop()


@needs_root
def test_the_database_is_written_afterwards_and_by_the_next_run(world):
    file = world.data / "handlers.sqlite" / "history.db"
    for runs in ({1}, {1, 2}):
        run = world.run("sqlite")
        assert run.told()["code"] == "dropped"
        # Read meanwhile, as whoever looks at a database does, which its locks have to survive.
        eventually(lambda so_far=runs: kept_in(file) == so_far, said=run.stop)
        assert file.stat().st_uid == NOBODY.uid
        run.stop()
        assert run.process.returncode == 0
    assert {path.stat().st_uid for path in file.parent.iterdir()} == {NOBODY.uid}


def kept_in(file: Path) -> set[int]:
    """The runs of which a database of history keeps events."""
    if not file.exists():
        return set()
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        try:
            return {run for (run,) in database.execute("SELECT DISTINCT run FROM chunks")}
        except sqlite3.OperationalError:
            return set()


# --- the data folder ----------------------------------------------------------------------


@needs_root
def test_the_data_folder_is_made_for_the_account_with_what_is_missing_around_it(world):
    world.data = world.here / "some" / "where" / "data"
    run = world.run("keeps")
    assert run.told()["code"] == "dropped"
    kept = world.data / "handlers.keeps" / "beats"
    eventually(kept.exists, said=run.stop)
    for path in (kept, kept.parent, world.data, world.data.parent, world.data.parent.parent):
        assert path.stat().st_uid == NOBODY.uid
    assert world.data.stat().st_mode & 0o777 == 0o700


@needs_root
def test_data_that_a_privileged_run_left_stays_usable(world):
    kept = world.data / "handlers.keeps" / "beats"
    before = world.run("keeps", drop_privileges="false")
    eventually(kept.exists)
    before.stop()
    assert (kept.stat().st_uid, world.data.stat().st_uid) == (0, 0)
    size = kept.stat().st_size
    run = world.run("keeps")
    assert run.told()["code"] == "dropped"
    eventually(lambda: kept.stat().st_size > size)
    assert kept.stat().st_uid == kept.parent.stat().st_uid == NOBODY.uid


@needs_root
def test_data_of_an_unprivileged_run_stays_usable_where_the_next_stays_uid_0(world):
    kept = world.data / "handlers.keeps" / "beats"
    before = world.run("keeps")
    eventually(kept.exists)
    before.stop()
    size = kept.stat().st_size
    closed = world.folder("closed", mode=0o700)
    run = world.run("keeps", f"jsonl:{closed}/e.jsonl")
    assert run.told()["state"] == "degraded"
    eventually(lambda: kept.stat().st_size > size)
    assert kept.stat().st_uid == world.data.stat().st_uid == 0


@needs_root
def test_nothing_else_is_given_away_through_links_in_the_data_folder(world):
    secret = world.folder("elsewhere") / "secret"
    secret.write_text("root's")
    mine = world.data / "handlers.keeps"
    mine.mkdir(parents=True)
    (mine / "symbolic").symlink_to(secret)
    (mine / "folder").symlink_to(secret.parent)
    (mine / "hard").hardlink_to(secret)
    run = world.run("keeps")
    assert run.told()["code"] == "dropped"
    assert mine.stat().st_uid == NOBODY.uid
    assert (secret.stat().st_uid, secret.parent.stat().st_uid) == (0, 0)


@needs_root
@pytest.mark.parametrize("how", ["strange", "link"])
def test_a_folder_that_is_not_linnix_s_alone_is_not_given_away(world, how):
    if how == "strange":
        world.data.mkdir()
        (world.data / "passwd").write_text("root")
        reason = f"have {world.data}, which holds what is not Linnix's: passwd"
    else:
        world.folder("elsewhere")
        world.data.symlink_to("elsewhere")
        reason = f"have {world.data}, which is a symbolic link"
    told = world.run("keeps").told()
    assert (told["state"], told["code"]) == ("degraded", "unreachable")
    assert (
        told["reason"] == f"uid 0 is kept, without capabilities: the account nobody cannot {reason}"
    )
    assert all(path.lstat().st_uid == 0 for path in (world.data, *world.data.iterdir()))


# --- where the account cannot reach what is needed ----------------------------------------


@needs_root
def test_uid_0_stays_without_capabilities_where_the_account_may_not_write(world):
    closed = world.folder("closed", mode=0o700)
    run = world.run(f"jsonl:{closed}/e.jsonl", keys=SMALL_FILES)
    told = run.told()
    assert (told["state"], told["code"]) == ("degraded", "unreachable")
    assert told["reason"] == (
        f"uid 0 is kept, without capabilities: the account nobody cannot write to {closed}"
    )
    assert told["hint"] == "let it do so, or choose another account: [agent] user"
    assert run.of_threads("Uid") == {("0\t0\t0\t0",)}
    assert run.of_threads(*SETS) == {NO_CAPABILITIES}
    assert run.of_threads("NoNewPrivs") == {("1",)}
    eventually(lambda: len(list(closed.iterdir())) > 3, said=run.stop)
    assert {path.stat().st_uid for path in closed.iterdir()} == {0}
    said = run.stop()
    assert run.process.returncode == 0
    assert f"warning: privileges: {told['reason']} ({told['hint']})\n" in said


@needs_root
def test_the_reason_names_the_folder_that_stands_in_the_way(world):
    closed = world.folder("closed", mode=0o700)
    (closed / "below").mkdir(mode=0o777)
    told = world.run(f"jsonl:{closed}/below/e.jsonl").told()
    assert told["reason"].endswith(f": the account nobody cannot enter {closed}")


@needs_root
def test_what_a_component_reads_later_has_to_be_readable(world):
    source = world.here / "source"
    source.write_text("private")
    source.chmod(0o600)
    told = world.run(f"reads:{source}").told()
    assert told["reason"].endswith(f": the account nobody cannot read {source}")
    source.chmod(0o644)
    assert world.run(f"reads:{source}").told()["code"] == "dropped"


@needs_root
@pytest.mark.parametrize("value", ["-", "nowhere", "x" * 300])
def test_a_value_that_is_no_path_on_the_disk_is_passed_over(world, value):
    assert world.run(f"reads:{value}").told()["code"] == "dropped"


@needs_root
def test_the_installation_has_to_be_within_reach(world):
    # Opened for the interpreter itself, closed for what lies beside it.
    site = world.here / "site"
    site.chmod(0o700)
    run = world.run()
    assert run.told()["reason"].endswith(f": the account nobody cannot enter {site}")
    assert run.of_threads("Uid", "CapEff") == {("0\t0\t0\t0", "0" * 16)}


@needs_root
def test_a_package_that_does_not_import_as_the_account_keeps_uid_0(world):
    with (world.here / "site" / "linnix_rights.py").open("a") as file:
        file.write("import os\nif os.geteuid() != 0:\n    raise OSError('no key')\n")
    told = world.run().told()
    assert told["reason"].endswith(
        ": the account nobody cannot import linnix_rights (OSError: no key)"
    )


@needs_root
def test_what_uid_0_cannot_reach_without_capabilities_is_said_too(world):
    theirs = world.folder("theirs", mode=0o700, owner=NOBODY.uid + 1 & 0xFFFF or 1)
    told = world.run(f"jsonl:{theirs}/e.jsonl").told()
    assert told["reason"].endswith(
        f"the account nobody cannot write to {theirs}; "
        f"without capabilities uid 0 cannot write to {theirs} either"
    )


@needs_root
def test_a_thread_that_keeps_its_capabilities_is_named(world):
    closed = world.folder("closed", mode=0o700)
    run = world.run("threaded", f"jsonl:{closed}/e.jsonl")
    told = run.told()
    assert told["state"] == "degraded"
    assert told["reason"].endswith("; its-own kept its privileges")
    assert len(run.of_threads("CapEff")) == 2


@needs_root
def test_a_call_that_hangs_since_the_start_is_named_too(world):
    closed = world.folder("closed", mode=0o700)
    (world.here / "linnix.toml").write_text(
        "[handlers.hangs]\n[handlers.console]\nenabled = false\n"
    )
    told = world.run(f"jsonl:{closed}/e.jsonl", others=True, start_timeout_s=5).told()
    assert told["reason"].endswith("; handlers.hangs-calls kept its privileges")


@needs_root
def test_where_the_account_cannot_be_taken_on_uid_0_stays(world):
    # As in a container that has root but not its capability to become somebody else.
    run = world.run(before=["setpriv", "--bounding-set", "-setuid", "--inh-caps", "-all"])
    told = run.told()
    assert told["state"] == "degraded"
    assert "uid 0 is kept, without capabilities: the account nobody cannot" in told["reason"]
    assert "Operation not permitted" in told["reason"]
    assert run.of_threads("Uid", "CapEff", "CapPrm") == {("0\t0\t0\t0", "0" * 16, "0" * 16)}


# --- where nothing is given up ------------------------------------------------------------


def own(key: str) -> str:
    (line,) = [
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith(f"{key}:")
    ]
    return line.split(":\t")[1].strip()


@needs_root
def test_a_component_that_needs_privileges_keeps_root_for_all(world):
    run = world.run("privileged")
    told = run.told()
    assert (told["state"], told["code"]) == ("running", "kept")
    assert told["reason"] == "root is kept: handlers.privileged needs it to keep a door open"
    assert run.of_threads("Uid", "CapEff", "CapBnd") == {
        ("0\t0\t0\t0", own("CapEff"), own("CapBnd"))
    }
    assert f"info: privileges: {told['reason']}\n" in run.stop()


@needs_root
def test_the_switch_keeps_everything(world):
    run = world.run(drop_privileges="false")
    assert run.told() is None
    keys = ("Uid", "CapEff", "CapPrm", "CapBnd", "NoNewPrivs")
    assert run.of_threads(*keys) == {tuple(map(own, keys))}


@needs_root
def test_a_run_that_was_not_started_as_root_is_left_alone(world):
    data = world.folder("theirs", owner=NOBODY.uid)
    become = ["setpriv", "--reuid", str(NOBODY.uid), "--regid", str(NOBODY.gid), "--groups", "1"]
    run = world.run(before=become, data_dir=data, user="daemon")
    assert run.told() is None
    assert run.of_threads("Uid", "Groups", "NoNewPrivs") == {(ids(NOBODY)[0], "1", "0")}


# --- the account --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nobody-of-that-name", "must be an account of this machine, got 'nobody-of-that-name'"),
        ("", "must be an account of this machine, got ''"),
        ("root", "must not be root; drop_privileges = false keeps a run privileged"),
    ],
)
def test_a_wrong_account_is_a_mistake_in_the_configuration(name, reason):
    from linnix_core.config import read

    with pytest.raises(ConfigError) as raised:
        read(overrides=[f"agent.user='{name}'"], environ={})
    (problem,) = raised.value.problems
    assert (problem.path, problem.reason) == ("agent.user", reason)


def test_an_unknown_account_ends_the_run_before_anything_starts(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "linnix_core", "run", "--set", "agent.user=nobody-of-that-name"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "agent.user: must be an account of this machine" in done.stderr


@pytest.mark.parametrize(
    ("existing", "expected"),
    [
        ({"linnix": 990, "nobody": 99}, ("linnix", 990)),
        ({"nobody": 99}, ("nobody", 99)),
        ({}, ("nobody", 65534)),
    ],
)
def test_the_default_account_is_linnix_else_nobody(monkeypatch, existing, expected):
    def getpwnam(name: str) -> pwd.struct_passwd:
        return pwd.struct_passwd((name, "x", existing[name], existing[name], "", "/", "/"))

    monkeypatch.setattr(pwd, "getpwnam", getpwnam)
    account = privileges.find_account()
    assert account == (*expected, expected[1])
