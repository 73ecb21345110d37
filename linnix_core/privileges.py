"""What a run that was started as root keeps of that once everything runs: nothing, if possible.

Components open, attach and bind what they need as root. Then the run becomes a plain account
without capabilities and goes on. Linux only; elsewhere nothing happens.

Capabilities and no_new_privs belong to threads, and threads inherit them: so no_new_privs is
set before the first thread begins, and the rest is given up by the main thread after every
component has started and before the threads that move records begin. Only the ids, and with
them the capabilities in use, leave all threads at once: glibc and musl see to that.

The process is not dumpable afterwards (prctl(2), PR_SET_DUMPABLE), and stays so: other
processes of the account must not trace it. What that hides of /proc/self (environ, io, maps) is
read by nobody here; a process's own task, fd and status stay readable.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import logging
import os
import pwd
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple, Self, TypeAlias

import attrs

from linnix_core.context import ComponentStatus, State
from linnix_core.hookspecs import KINDS

if TYPE_CHECKING:
    from linnix_core.config import AgentSettings
    from linnix_core.plugins import Component

__all__ = ["Account", "Privileges", "find_account", "obstacles"]

_LOG = logging.getLogger("linnix.agent")

#: The account of a run where nobody names one: the first of these that exists.
ACCOUNTS = ("linnix", "nobody")

#: Seconds for a process of the account to say what it cannot reach.
PROBE_TIMEOUT_S = 10.0

#: Seconds for threads whose last call is over to end.
_ENDING_S = 1.0

#: How many obstacles a reason names.
_MAX_NAMED = 3


class Account(NamedTuple):
    """Whom a run becomes."""

    name: str
    uid: int
    gid: int


_ROOT = Account("uid 0", 0, 0)


def find_account(name: str | None = None) -> Account:
    """The account of that name, or the default. Raises ``KeyError`` where there is none."""
    for wanted in ACCOUNTS if name is None else (name,):
        try:
            found = pwd.getpwnam(wanted)
        except KeyError:
            continue
        return Account(found.pw_name, found.pw_uid, found.pw_gid)
    if name is not None:
        raise KeyError(name)
    # The kernel's own number for nobody: images without accounts have it too.
    return Account("nobody", 65534, 65534)


class Privileges:
    """The privileges of one run: taken along to its start, given up once everything runs."""

    def __init__(self, account: Account) -> None:
        self.account = account
        #: How that went; None until it is known.
        self.status: ComponentStatus | None = None
        _forbid_new()

    @classmethod
    def of_this_run(cls, settings: AgentSettings) -> Self | None:
        """What there is to give up: None where it is not wanted, or there is nothing."""
        if not settings.drop_privileges or sys.platform != "linux" or os.geteuid() != 0:
            return None
        return cls(find_account(settings.user))

    def take_back(self, components: Iterable[Component]) -> None:
        """Make root the owner of files that an earlier run wrote as the account.

        They are opened as root, and whoever writes private files refuses those of others.
        """
        for path, writes in _paths(components):
            if writes and _is_plain(path, of=self.account):
                # Where that fails, the component will have its say.
                with contextlib.suppress(OSError):
                    _give(path, _ROOT)

    def drop(self, components: Sequence[Component], data_dir: Path) -> None:
        """Give up what can be given up; `status` tells what that was, and why not all.

        To be called when every component that runs has started, and before the threads
        that are to inherit the result.
        """
        running = [component for component in components if component.runs]
        for component in running:
            if why := getattr(component.cls, "PRIVILEGES", ""):
                self._tell("running", "kept", f"root is kept: {component} needs it {why}")
                return
        for component in components:
            component.close()  # its threads were made as root, and are made anew when needed
        needs = [*_installation(), *_of_data(data_dir), *_of_paths(_paths(running))]
        files = [path for path, writes in _paths(running) if writes and _is_plain(path, of=_ROOT)]
        hindered = self._ask(_modules(running), needs) or self._become(data_dir, files)
        if hindered:
            self._stay(hindered, needs, data_dir, files)
        elif left := _leftovers(self.account.uid):
            self._tell("degraded", "threads", f"runs as {self.account.name}, but {left}")
        else:
            said = f"runs as {self.account.name} without capabilities"
            self._tell("running", "dropped", said)

    def _ask(self, modules: list[str], needs: list[Need]) -> list[str]:
        """What the account cannot do of what will be needed, as a process of it finds out."""
        question = {
            "path": [os.path.abspath(entry) for entry in sys.path],  # noqa: PTH100
            "modules": modules,
            "needs": needs,
        }
        try:
            done = subprocess.run(  # noqa: S603 - this interpreter and a constant
                [sys.executable, "-I", "-B", "-c", _PROBE],
                input=json.dumps(question),
                capture_output=True,
                check=False,
                text=True,
                errors="replace",
                timeout=PROBE_TIMEOUT_S,
                cwd="/",
                env={"PATH": os.defpath},
                user=self.account.uid,
                group=self.account.gid,
                extra_groups=[],
            )
            answer = [str(said) for said in json.loads(done.stdout.splitlines()[-1])]
        except subprocess.TimeoutExpired:
            return [f"answer within {PROBE_TIMEOUT_S:g} s"]
        except (OSError, subprocess.SubprocessError) as error:
            return [f"run {sys.executable} ({getattr(error, 'strerror', None) or error})"]
        except (ValueError, TypeError, IndexError):
            said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
            return [f"run {sys.executable} ({said[-200:]})"]
        return answer

    def _become(self, data_dir: Path, files: list[Path]) -> list[str]:
        """Turn into the account, with what it needs as its own; what kept that from happening."""
        try:
            _make(data_dir, self.account)
            _hand_over(data_dir, self.account)
            for file in files:
                _give(file, self.account)
            _empty_bounding_set()
            os.setgroups([])
            os.setresgid(*[self.account.gid] * 3)
            os.setresuid(*[self.account.uid] * 3)
        except _NotOurs as error:
            return [str(error)]
        except OSError as error:
            where = f" {error.filename}" if error.filename else ""
            return [f"take over{where} ({error.strerror})"]
        _empty_capabilities()
        return []

    def _stay(
        self, hindered: list[str], needs: list[Need], data_dir: Path, files: list[Path]
    ) -> None:
        """Stay uid 0 and give up all that makes it more than the owner of its files."""
        who = f"the account {self.account.name}"
        said = [f"uid 0 is kept, without capabilities: {who} cannot {_some(hindered)}"]
        with contextlib.suppress(OSError, _NotOurs):
            _hand_over(data_dir, _ROOT)
        for file in files:
            with contextlib.suppress(OSError):
                _give(file, _ROOT)
        _empty_bounding_set()
        _empty_capabilities()
        if still := obstacles([], needs):
            said.append(f"without capabilities uid 0 cannot {_some(still)} either")
        if left := _leftovers(0):
            said.append(left)
        self._tell(
            "degraded",
            "unreachable",
            "; ".join(said),
            hint="let it do so, or choose another account: [agent] user",
        )

    def _tell(self, state: State, code: str, reason: str, hint: str | None = None) -> None:
        self.status = ComponentStatus(
            component="agent",
            kind="agent",
            name="privileges",
            state=state,
            code=code,
            reason=reason,
            hint=hint,
        )
        level = logging.INFO if state == "running" else logging.WARNING
        _LOG.log(level, "privileges: %s%s", reason, f" ({hint})" if hint else "")


# --- what is needed afterwards ----------------------------------------------------------

#: A path, and what must be allowed there, as `os.access` takes it.
Need: TypeAlias = tuple[str, int]

_PROBE = """
import json, sys
asked = json.load(sys.stdin)
sys.path[:] = asked["path"]
from linnix_core.privileges import obstacles
print("", json.dumps(obstacles(asked["modules"], asked["needs"])), sep="\\n")
"""


def obstacles(modules: Iterable[str], needs: Iterable[Need]) -> list[str]:
    """What this process is not allowed of what is needed, as clauses after "cannot"."""
    found = dict.fromkeys(
        _obstacle(path, mode) for path, mode in needs if not os.access(path, mode)
    )
    if not found:
        for module in modules:
            try:
                importlib.import_module(module)
            except BaseException as error:  # noqa: BLE001 - whatever a plugin's module does
                found[f"import {module} ({type(error).__name__}: {error})"] = None
    return list(found)


def _obstacle(path: str, mode: int) -> str:
    for folder in reversed(Path(path).parents):
        if not os.access(folder, os.X_OK):
            return f"enter {folder}"
    return f"{'write to' if mode & os.W_OK else 'read'} {path}"


def _some(found: list[str]) -> str:
    """The first few; one path that is closed may close a thousand others."""
    more = len(found) - _MAX_NAMED
    return ", ".join(found[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def _installation() -> Iterator[Need]:
    """Every file that was imported: what is imported later lies beside them."""
    for module in list(sys.modules.values()):
        file = vars(module).get("__file__") if isinstance(module, ModuleType) else None
        if isinstance(file, str) and os.path.isfile(file):  # noqa: PTH113
            yield os.path.abspath(file), os.R_OK  # noqa: PTH100


def _modules(components: Iterable[Component]) -> list[str]:
    named = {component.cls.__module__ for component in components} - {"__main__"}
    return ["linnix_core.agent", *sorted(named)]


def _of_data(data_dir: Path) -> Iterator[Need]:
    # The folder itself is given away; whoever gets it has to come by.
    yield str(_nearest(data_dir.absolute().parent)), os.X_OK


def _of_paths(paths: Iterable[tuple[Path, bool]]) -> Iterator[Need]:
    for path, writes in paths:
        if writes and (_is_plain(path, of=_ROOT) or not _exists(path)):
            # The file is given away; its folder is not ours, and has to allow new names.
            yield str(_nearest(path.parent)), os.W_OK | os.X_OK
        elif _exists(path):
            enter = os.X_OK if path.is_dir() else 0
            yield str(path), (os.W_OK if writes else os.R_OK) | enter


def _paths(components: Iterable[Component]) -> Iterator[tuple[Path, bool]]:
    """The paths in the configurations, absolute, and whether they are written to later."""
    for component in components:
        if not attrs.has(type(component.config)):
            continue
        for field in attrs.fields(type(component.config)):
            value, access = getattr(component.config, field.name), field.metadata.get("access")
            named = isinstance(value, Path) or (access is not None and isinstance(value, str))
            # A dash stands for standard input or output.
            if named and str(value) != "-":
                whole = os.path.abspath(os.path.expanduser(value))  # noqa: PTH100, PTH111
                yield Path(whole), access == "write"


def _nearest(path: Path) -> Path:
    """The path, or the first of the folders around it that exists."""
    return next((part for part in (path, *path.parents) if _exists(part)), path)


def _exists(path: Path) -> bool:
    # Not Path.exists(): that raises for a name that is too long.
    return os.path.exists(path)  # noqa: PTH110


# --- who owns what ----------------------------------------------------------------------


class _NotOurs(Exception):
    """A folder of data that is not Linnix's alone; its message is a clause after "cannot"."""


def _make(folder: Path, owner: Account) -> None:
    """Make the folder and those around it that are missing, private, for that owner."""
    # Where root cannot make them, nobody can, and nothing is lost by becoming the account.
    with contextlib.suppress(OSError):
        for missing in reversed([part for part in (folder, *folder.parents) if not _exists(part)]):
            missing.mkdir(mode=0o700)
            _give(missing, owner)


def _hand_over(data_dir: Path, owner: Account) -> None:
    """Make everything in the folder the owner's. Follows no symbolic link.

    Raises `_NotOurs` where there is more than Linnix leaves there: a mistake in ``data_dir``
    must not give away a folder of the system.
    """
    if data_dir.is_symlink():
        raise _NotOurs(f"have {data_dir}, which is a symbolic link")
    if not _exists(data_dir):
        return
    for folder, folders, files, descriptor in os.fwalk(data_dir):
        if Path(folder) == data_dir and (strange := _strangers((*folders, *files))):
            raise _NotOurs(f"have {data_dir}, which holds what is not Linnix's: {strange[0]}")
        os.fchown(descriptor, owner.uid, owner.gid)
        for file in files:
            _give(file, owner, descriptor)


def _strangers(names: Iterable[str]) -> list[str]:
    ours = (*(f"{kind}." for kind in KINDS), "deployments.", ".deployments-", "lost+found")
    return sorted(name for name in names if not name.startswith(ours))


def _is_plain(path: Path, *, of: Account) -> bool:
    """Whether it is a plain file that belongs to that account."""
    try:
        found = path.lstat()
    except (OSError, ValueError):
        return False
    return _plain(found) and found.st_uid == of.uid


def _plain(found: os.stat_result) -> bool:
    """Whether it is a regular file without a second name, which could be somebody else's."""
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1


def _give(name: str | Path, owner: Account, folder: int | None = None) -> None:
    """Change the owner of a folder or a plain file; leave anything else as it is."""
    # Not really opened: to close a file would take away the locks that this process has on it
    # (fcntl(2)), and with them what keeps others out of a database.
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, dir_fd=folder)
    except FileNotFoundError:
        return
    try:
        found = os.fstat(descriptor)
        if _plain(found) or stat.S_ISDIR(found.st_mode):
            # By its descriptor: what has that name may be another file by now.
            os.chown(f"/proc/self/fd/{descriptor}", owner.uid, owner.gid)
    finally:
        os.close(descriptor)


# --- the threads ------------------------------------------------------------------------


def _leftovers(uid: int) -> str:
    """The threads that kept what the others gave up, as a clause; empty if there is none.

    A plugin's own threads are out of reach, except for their ids.
    """
    deadline = time.monotonic() + _ENDING_S
    try:
        while (left := _privileged(uid)) and time.monotonic() < deadline:
            time.sleep(0.01)
    except OSError as error:
        return f"its threads cannot be looked at ({error})"
    if not left:
        return ""
    return f"{_some(left)} kept {'its' if len(left) == 1 else 'their'} privileges"


def _privileged(uid: int) -> list[str]:
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    found = []
    for task in Path("/proc/self/task").iterdir():
        try:
            lines = (task / "status").read_text(encoding="utf-8", errors="replace").splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
        said = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        capabilities = int(said["CapEff"], 16) | int(said["CapPrm"], 16)
        # The kernel tells of no_new_privs since 4.10.
        if (
            capabilities
            or said.get("NoNewPrivs", "1") != "1"
            or set(said["Uid"].split()) != {str(uid)}
        ):
            found.append(names.get(int(task.name), said["Name"]))
    return sorted(found)


# --- the kernel -------------------------------------------------------------------------

# linux/prctl.h
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4

# linux/capability.h; capabilities are numbers below 64 as long as there are two words of them.
_CAPABILITY_VERSION_3 = 0x20080522
_CAPABILITIES = 64


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def _prctl(option: int, *values: int) -> bool:
    """Whether the kernel did that for this thread."""
    arguments = [ctypes.c_ulong(value) for value in (*values, 0, 0, 0, 0)[:4]]
    return bool(ctypes.CDLL(None).prctl(ctypes.c_int(option), *arguments) == 0)


def _forbid_new() -> None:
    """From here on no program that this thread starts has more rights than the thread."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _empty_bounding_set() -> None:
    # Unknown numbers are refused, and all where CAP_SETPCAP is missing: nothing is lost then,
    # no_new_privs already keeps programs from gaining any.
    for number in range(_CAPABILITIES):
        _prctl(_PR_CAPBSET_DROP, number)


def _empty_capabilities() -> None:
    """Give up the ambient, effective, permitted and inheritable sets of this thread."""
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    header, nothing = _Header(_CAPABILITY_VERSION_3, 0), (_Sets * 2)()
    ctypes.CDLL(None).capset(ctypes.byref(header), ctypes.byref(nothing))
