"""A git repository as an audit sees it: argument lists, streams, no hooks, nobody's settings."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from linnix_core import LinnixError

__all__ = ["Change", "GitError", "Repository"]

_CHUNK = 2**16

# A repository is a stranger: what its configuration would run is not run.
_SAFE = (
    "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "core.pager=cat",
    "-c", "log.showSignature=false", "-c", "log.showRoot=true", "-c", "core.quotePath=false",
    "-c", "diff.ignoreSubmodules=all", "-c", "protocol.allow=never", "-c", "gc.auto=0",
    "-c", "maintenance.auto=false", "-c", "commit.gpgSign=false", "-c", "core.untrackedCache=false",
)  # fmt: skip


class GitError(LinnixError):
    """Git is missing, or refuses."""

    exit_code = 2


class Change(NamedTuple):
    """A file as a commit left it."""

    commit: str
    path: str
    blob: str


def _environment(identity: bool) -> dict[str, str]:
    """Without any ``GIT_*``; with ``identity`` the user's own configuration says who commits."""
    kept = ("GIT_AUTHOR_", "GIT_COMMITTER_") if identity else ()
    found = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or (kept and name.startswith(kept))
    }
    found |= {
        "LC_ALL": "C",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_GRAFT_FILE": os.devnull,
        "GIT_LITERAL_PATHSPECS": "1",
    }
    if not identity:
        found |= {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
    return found


class Repository:
    """The repository whose working tree holds ``path``."""

    def __init__(self, path: Path) -> None:
        self._safe = (*_SAFE, "-c", "safe.directory=*")
        self.root = path.resolve()
        if not self.root.is_dir():
            raise GitError(f"{path} is no folder")
        top = self.run("rev-parse", "--show-toplevel", said=f"{path} is in no git repository")
        self.root = Path(os.fsdecode(top.removesuffix(b"\n")))

    # --- running git ------------------------------------------------------------------

    def _command(self, *args: str) -> list[str]:
        return ["git", *self._safe, "-C", str(self.root), "--no-pager", *args]

    def run(
        self,
        *args: str,
        said: str = "",
        given: bytes | None = None,
        identity: bool = False,
    ) -> bytes:
        """What a command prints; `GitError` where it fails."""
        try:
            done = subprocess.run(  # noqa: S603 - a list of arguments, none of them a stranger's
                self._command(*args),
                input=given if given is not None else b"",
                capture_output=True,
                env=_environment(identity),
                check=False,
            )
        except FileNotFoundError:
            raise GitError("git is not installed", hint="apt install git") from None
        if done.returncode:
            words = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise GitError(said or f"git {args[0]}: {words[-1] if words else 'failed'}")
        return done.stdout

    def _stream(self, *args: str, given: IO[bytes] | None = None) -> Iterator[bytes]:
        """What a command prints, in parts that end with ``\\0`` there, without it."""
        try:
            process = subprocess.Popen(  # noqa: S603 - as above
                self._command(*args),
                stdin=given or subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=_environment(identity=False),
            )
        except FileNotFoundError:
            raise GitError("git is not installed", hint="apt install git") from None
        with process:
            assert process.stdout is not None
            rest = b""
            try:
                while chunk := process.stdout.read(_CHUNK):
                    *parts, rest = (rest + chunk).split(b"\0")
                    yield from parts
            except BaseException:
                process.kill()
                raise
        if rest:
            yield rest
        if process.returncode:
            raise GitError(f"git {args[0]} failed with {process.returncode}")

    # --- the tree ---------------------------------------------------------------------

    def files(self) -> list[str]:
        """What is tracked, and what is neither tracked nor ignored; sorted."""
        parts = self._stream("ls-files", "-z", "--cached", "--others", "--exclude-standard")
        return sorted({os.fsdecode(part) for part in parts})

    def changed(self) -> list[str]:
        """What is not as it was committed, untracked files included."""
        return [os.fsdecode(part) for part in self._stream("status", "--porcelain", "-z")]

    def head(self) -> str | None:
        """The commit that is checked out; None where there is none yet."""
        try:
            return self.run("rev-parse", "--verify", "-q", "HEAD^{commit}").decode().strip()
        except GitError:
            return None

    # --- the history ------------------------------------------------------------------

    @property
    def shallow(self) -> bool:
        """Whether part of the history was not fetched."""
        said = self.run("rev-parse", "--is-shallow-repository")
        return said.strip() == b"true"

    def history(self) -> Iterator[Change]:
        """Every file that a commit of any branch or tag added or changed, the latest first.

        What lies in the stash is nobody else's. Merges show what they brought.
        """
        revisions = ["--exclude=refs/stash", "--all", *(["HEAD"] if self.head() else [])]
        parts = self._stream(
            "log", *revisions, "-z", "--raw", "--no-abbrev", "--no-renames", "--root",
            "--diff-filter=AMT", "--diff-merges=first-parent", "--no-ext-diff", "--no-textconv",
            "--no-color", "--no-notes", "--no-decorate", "--format=%H", "--",
        )  # fmt: skip
        commit = ""
        for part in parts:
            # Between a commit and its first file is a line break, or two, and no \0.
            lines = part.lstrip(b"\n")
            head, _, first = lines.partition(b"\n")
            if head and not head.startswith(b":"):
                commit, lines = head.decode("ascii", "replace"), first.lstrip(b"\n")
            if lines.startswith(b":"):
                _, mode, _, blob, _ = lines.split(b" ", 4)
                path = os.fsdecode(next(parts, b""))
                # A link is text, a submodule (160000) is somebody else's.
                if mode != b"160000":
                    yield Change(commit, path, blob.decode("ascii"))

    def sizes(self, blobs: Iterable[str]) -> dict[str, tuple[int, int]]:
        """The size of each blob, and what it takes as it is stored; missing ones are left out."""
        with tempfile.TemporaryFile() as asked:
            asked.writelines(blob.encode() + b"\n" for blob in blobs)
            asked.seek(0)
            found = b"\0".join(
                self._stream(
                    "cat-file",
                    "--batch-check=%(objectname) %(objectsize) %(objectsize:disk)",
                    given=asked,
                )
            )
        result = {}
        for line in found.splitlines():
            name, size, *stored = line.split(b" ")
            if stored:
                result[name.decode("ascii")] = int(size), int(stored[0])
        return result

    def contents(self, blobs: Iterable[str], most: int) -> Iterator[tuple[str, bytes]]:
        """Each blob with its first bytes, ``most`` at most; missing ones are left out."""
        with tempfile.TemporaryFile() as asked:
            asked.writelines(blob.encode() + b"\n" for blob in blobs)
            asked.seek(0)
            process = subprocess.Popen(  # noqa: S603 - as above
                self._command("cat-file", "--batch"),
                stdin=asked,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=_environment(identity=False),
            )
            with process:
                assert process.stdout is not None
                try:
                    while header := process.stdout.readline():
                        name, *described = header.split()
                        if len(described) != 2:
                            continue
                        # A line break follows.
                        left = int(described[1]) + 1
                        data = process.stdout.read(min(left - 1, most))
                        left -= len(data)
                        while left > 0:
                            left -= len(process.stdout.read(min(left, _CHUNK))) or left
                        yield name.decode("ascii"), data
                except BaseException:
                    process.kill()
                    raise
