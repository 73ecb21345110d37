"""The rules of ``[sync.NAME]``: a folder from here to mounts and hosts, what changed only.

To a host it goes with rsync where both ends have it, else over SFTP. Every file is written under
another name and renamed, so that none ever looks complete before it is. Nothing is deleted.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import attrs

from linnix_core import LinnixError, printable
from linnix_plugin_models.paths import CrossPlatformPath
from linnix_plugin_models.sftp import NotThere, Sftp, ssh_command
from linnix_plugin_models.syncfile import Host, Preferences, Rule, SyncFile
from linnix_plugin_models.transfer import Broken, Progress

__all__ = [
    "Destination",
    "Outcome",
    "destinations",
    "excluded",
    "files_of",
    "find_rule",
    "run_rule",
]

CHUNK = 2**20
_PARTIAL = ".linnix-partial"


@attrs.frozen(kw_only=True)
class Destination:
    """Where a rule copies to: a folder of a mount, or of a host."""

    text: str
    name: str
    local: Path | None = None
    host: Host | None = None
    remote: CrossPlatformPath | None = None


@attrs.frozen(kw_only=True)
class Outcome:
    """What was done for one destination, or would be."""

    destination: str
    method: str
    files: tuple[str, ...] = ()
    size: int = 0
    unchanged: int = 0
    error: str | None = None


def destinations(sync: SyncFile, rule: Rule) -> list[Destination]:
    """Where a rule copies to. A name that is a mount and a host is the mount. May raise."""
    found = []
    for text in rule.destinations:
        name, _, path = text.partition(":")
        if name in sync.mounts:
            mount = sync.mounts[name]
            parts = CrossPlatformPath(path, "linux").normalized().parts
            if ".." in parts:
                raise LinnixError(f"{text!r} leads out of the mount")
            found.append(Destination(text=text, name=name, local=mount.local_path.joinpath(*parts)))
            continue
        host = sync.hosts[name]
        remote = CrossPlatformPath(path, host.platform)
        found.append(Destination(text=text, name=name, host=host, remote=remote))
    return found


def excluded(path: str, patterns: Sequence[str]) -> bool:
    """Whether a pattern takes a path, a folder above it, or a name in it."""
    parts = path.split("/")
    for pattern in patterns:
        wanted = pattern.strip("/")
        if "/" in wanted:
            above = ("/".join(parts[:count]) for count in range(1, len(parts) + 1))
            if any(fnmatchcase(whole, wanted) for whole in above):
                return True
        elif any(fnmatchcase(part, wanted) for part in parts):
            return True
    return False


def files_of(rule: Rule) -> Iterator[tuple[str, os.stat_result]]:
    """Regular files of the source that no pattern takes; links are left out."""
    if not rule.source.is_dir():
        raise LinnixError(f"there is no folder {rule.source}")
    for folder, folders, names in os.walk(rule.source):
        below = Path(folder).relative_to(rule.source)
        folders[:] = sorted(
            name
            for name in folders
            if not excluded((below / name).as_posix(), rule.exclude_patterns)
        )
        for name in sorted(names):
            path = Path(folder, name)
            relative = (below / name).as_posix()
            if not excluded(relative, rule.exclude_patterns) and not path.is_symlink():
                try:
                    told = path.stat()
                except FileNotFoundError:
                    continue
                if path.is_file():
                    yield relative, told


def find_rule(sync: SyncFile, name: str) -> Rule:
    """One rule by its name. Raises `LinnixError`."""
    if name not in sync.sync:
        known = ", ".join(sorted(sync.sync)) or "none"
        raise LinnixError(f"there is no rule [sync.{printable(name, 80)}] (known: {known})")
    return sync.sync[name]


def run_rule(
    sync: SyncFile, name: str, *, dry_run: bool = False, progress: Progress | None = None
) -> list[Outcome]:
    """Copy what changed to every destination; one that fails does not keep the others from it.

    Raises `LinnixError` for what is wrong with the rule itself.
    """
    rule = find_rule(sync, name)
    files = dict(files_of(rule))
    outcomes = []
    for destination in destinations(sync, rule):
        try:
            outcomes.append(_persistently(sync, rule, files, destination, dry_run, progress))
        except LinnixError as error:
            outcomes.append(
                Outcome(destination=destination.text, method="failed", error=str(error))
            )
        except OSError as error:
            said = f"{error.filename or destination.text}: {error.strerror or error}"
            outcomes.append(Outcome(destination=destination.text, method="failed", error=said))
    return outcomes


def _persistently(
    sync: SyncFile,
    rule: Rule,
    files: dict[str, os.stat_result],
    destination: Destination,
    dry_run: bool,
    progress: Progress | None,
) -> Outcome:
    """Begin again when a connection breaks: what has arrived is unchanged then."""
    for attempt in range(sync.preferences.retries):
        try:
            return _run(sync, rule, files, destination, dry_run, progress)
        except Broken:
            time.sleep(min(2.0**attempt, 30.0))
    return _run(sync, rule, files, destination, dry_run, progress)


def _run(
    sync: SyncFile,
    rule: Rule,
    files: dict[str, os.stat_result],
    destination: Destination,
    dry_run: bool,
    progress: Progress | None,
) -> Outcome:
    if destination.local is not None:
        if not sync.mount_point(destination.name).is_accessible():
            raise LinnixError(f"the mount {destination.name} is not there")
        target: _Target = _Folder(destination.local)
        method = "mount"
    else:
        assert destination.host is not None
        assert destination.remote is not None
        method = "sftp"
        target = _Remote(destination.host, sync.preferences, destination.remote)
    try:
        changed = [path for path, told in files.items() if not target.has(path, told)]
        size = sum(files[path].st_size for path in changed)
        if destination.host is not None and _rsync_works(destination.host, sync.preferences):
            method = "rsync"
        if changed and not dry_run:
            if method == "rsync":
                assert destination.host is not None
                assert destination.remote is not None
                target.prepare()
                _rsync(rule, changed, destination.host, destination.remote, sync.preferences)
            else:
                done = 0
                for path in changed:
                    target.put(rule.source / path, path, files[path])
                    done += files[path].st_size
                    if progress is not None:
                        progress(done, size)
    finally:
        target.close()
    return Outcome(
        destination=destination.text,
        method=method,
        files=tuple(changed),
        size=size,
        unchanged=len(files) - len(changed),
    )


class _Target:
    """A folder that files are put into."""

    def has(self, path: str, told: os.stat_result) -> bool:
        """Whether it is there with this size and this time of change, to the second."""
        raise NotImplementedError

    def put(self, source: Path, path: str, told: os.stat_result) -> None:
        """Copy one file."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Make the folder itself."""

    def close(self) -> None:
        """Let go of it."""


class _Folder(_Target):
    def __init__(self, root: Path) -> None:
        self._root = root

    def has(self, path: str, told: os.stat_result) -> bool:
        try:
            there = (self._root / path).stat()
        except OSError:
            return False
        return (there.st_size, int(there.st_mtime)) == (told.st_size, int(told.st_mtime))

    def put(self, source: Path, path: str, told: os.stat_result) -> None:
        target = self._root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}{_PARTIAL}")
        shutil.copyfile(source, partial, follow_symlinks=False)
        os.utime(partial, ns=(told.st_mtime_ns, told.st_mtime_ns))
        partial.replace(target)


class _Remote(_Target):
    def __init__(self, host: Host, preferences: Preferences, root: CrossPlatformPath) -> None:
        self._sftp = Sftp(host, preferences)
        self._root = os.fsencode(root.to_sftp_path()).rstrip(b"/")
        self._made: set[bytes] = set()

    def has(self, path: str, told: os.stat_result) -> bool:
        try:
            there = self._sftp.attributes(self._path(path))
        except NotThere:
            return False
        return (there.size, there.mtime) == (told.st_size, int(told.st_mtime))

    def put(self, source: Path, path: str, told: os.stat_result) -> None:
        target = self._path(path)
        folder, _, name = target.rpartition(b"/")
        if folder not in self._made:
            self._sftp.make_folder(folder)
            self._made.add(folder)
        partial = folder + b"/." + name + os.fsencode(_PARTIAL)
        with source.open("rb") as file:
            chunks = iter(lambda: file.read(CHUNK), b"")
            self._sftp.write(partial, chunks, int(told.st_mtime))
        self._sftp.replace(partial, target)

    def prepare(self) -> None:
        self._sftp.make_folder(self._root or b"/")

    def close(self) -> None:
        self._sftp.close()

    def _path(self, path: str) -> bytes:
        return self._root + b"/" + os.fsencode(path)


# --- rsync ----------------------------------------------------------------------------


def _rsync_works(host: Host, preferences: Preferences) -> bool:
    """Whether this machine and the host both have it."""
    if preferences.transfer_method == "ssh" or shutil.which("rsync") is None:
        return False
    command = ssh_command(host, preferences, "--", host.hostname, "rsync", "--version")
    try:
        answer = subprocess.run(  # noqa: S603 - an argument list
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=preferences.ssh_timeout,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0 and answer.stdout.startswith(b"rsync ")


def _rsync(
    rule: Rule,
    files: Sequence[str],
    host: Host,
    remote: CrossPlatformPath,
    preferences: Preferences,
) -> None:
    # The file names go in by themselves, and the path without a shell (--protect-args).
    command = [
        "rsync",
        "--times",
        "--protect-args",
        "--from0",
        "--files-from=-",
        f"--timeout={max(int(preferences.ssh_timeout), 1)}",
        "--rsh", " ".join(map(_word_of_rsync, ssh_command(host, preferences))),
        "--", f"{rule.source.absolute()}/", f"{_address(host)}:{_shown(remote)}/",
    ]  # fmt: skip
    said = b""
    for _ in range(preferences.retries + 1):
        done = subprocess.run(  # noqa: S603 - an argument list
            command,
            input=b"\0".join(map(os.fsencode, files)),
            capture_output=True,
            check=False,
        )
        if done.returncode == 0:
            return
        said = done.stderr
        if done.returncode not in (10, 12, 30, 35, 255):  # of the connection
            break
    lines = said.decode("utf-8", "replace").strip().splitlines() or ["rsync failed"]
    raise LinnixError(f"rsync to {host.hostname}: {printable(lines[0], 300)}")


def _shown(remote: CrossPlatformPath) -> str:
    """Below the home without its ``~``, which no shell is there to resolve."""
    return remote.to_sftp_path() if remote.root == "home" else remote.to_ssh_path()


def _address(host: Host) -> str:
    return f"[{host.hostname.strip('[]')}]" if ":" in host.hostname else host.hostname


def _word_of_rsync(word: str) -> str:
    """One word of ``--rsh``: rsync splits at blanks, knows quotes, and doubles them inside."""
    return "'" + word.replace("'", "''") + "'"
