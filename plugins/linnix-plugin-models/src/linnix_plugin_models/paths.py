r"""Paths that more than one operating system names: Windows, Git Bash, WSL, POSIX, UNC.

A `CrossPlatformPath` knows what a text means (drive, share, distribution, home or plain POSIX)
and writes it as each of them wants it. What has no form there is a `ValueError`, never a guess.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from pathlib import Path
from typing import Literal, TypeAlias

import attrs

__all__ = ["CrossPlatformPath", "Platform", "Shell", "Style", "this_platform"]

Platform: TypeAlias = Literal["mac", "linux", "windows"]
Shell: TypeAlias = Literal["posix", "powershell", "cmd"]
Style: TypeAlias = Literal["backslash", "forward"]

#: What a path stands on. ``share`` is UNC (server, share), ``wsl`` a WSL distribution seen from
#: Windows, ``home`` a ``~``, ``drive-relative`` the ``D:foo`` of DOS.
Root: TypeAlias = Literal["drive", "drive-relative", "share", "wsl", "posix", "home", "relative"]

_DRIVE = re.compile(r"([A-Za-z]):(.*)", re.DOTALL)
_BASH_DRIVE = re.compile(r"/(?:mnt/|cygdrive/)?([A-Za-z])(?=/|$)(.*)", re.DOTALL)
_WSL_DRIVE = re.compile(r"/mnt/([a-z])(?=/|$)(.*)", re.DOTALL)
_WSL_SERVERS = ("wsl$", "wsl.localhost")
#: Names that Windows keeps for devices, whatever follows their first dot (Microsoft, "Naming
#: Files, Paths, and Namespaces").
_DEVICES = re.compile(r"(?:con|prn|aux|nul|(?:com|lpt)[0-9¹²³])(?:\..*)?", re.IGNORECASE)
_NOT_IN_WINDOWS_NAMES = re.compile(r'[<>:"|?*\x00-\x1f\\]')
#: PowerShell takes each of these for a single quote.
_POWERSHELL_QUOTES = "'\u2018\u2019\u201a\u201b"


def this_platform() -> Platform:
    """The platform of this machine."""
    import sys

    by_name: dict[str, Platform] = {"darwin": "mac", "win32": "windows"}
    return by_name.get(sys.platform, "linux")


@attrs.frozen(init=False, eq=False)
class CrossPlatformPath:
    r"""A path with the platform that it belongs to.

    Without ``platform`` it is ``windows`` where the text can be nothing else (``D:/…``, a
    backslash, ``\\server\share``), and this machine's otherwise.

    >>> path = CrossPlatformPath("D:/hafs_training/my models", platform="windows")
    >>> print(path.to_windows("backslash"), path.to_posix(), path.for_shell_escape(), sep="\n")
    D:\hafs_training\my models
    /d/hafs_training/my models
    '/d/hafs_training/my models'
    """

    platform: Platform
    root: Root
    #: The drive, ``server/share``, distribution or user that it stands on.
    base: str
    parts: tuple[str, ...]

    def __init__(self, path: str | Path, platform: Platform | None = None) -> None:
        text = str(path)
        if not text:
            raise ValueError("a path cannot be empty")
        if "\0" in text:
            raise ValueError("a path cannot hold a NUL")
        if platform is None:
            platform = "windows" if _looks_like_windows(text) else this_platform()
        elif platform not in ("mac", "linux", "windows"):
            raise ValueError(f"a platform is mac, linux or windows, not {platform!r}")
        root, base, rest = _windows(text) if platform == "windows" else _posix(text)
        parts = tuple(part for part in rest.split("/") if part not in ("", "."))
        self.__attrs_init__(platform, root, base, parts)

    # --- forms ------------------------------------------------------------------------

    def to_windows(self, style: Style = "forward", *, distribution: str | None = None) -> str:
        r"""As Windows writes it; ``D:/x`` or with ``"backslash"`` ``D:\x``.

        A POSIX path under ``/mnt/<drive>`` is the drive that WSL shows there; any other one
        has a Windows form only inside of a WSL ``distribution``. Raises `ValueError`, also
        for names that Windows cannot hold.
        """
        if style not in ("backslash", "forward"):
            raise ValueError(f"a style is backslash or forward, not {style!r}")
        text = self._windows_text(distribution)
        return text.replace("/", "\\") if style == "backslash" else text

    def _windows_text(self, distribution: str | None) -> str:
        here = self._seen_from_windows(distribution)
        if here is not self or self.platform != "windows":
            here.check_windows_names()
        rest = "/".join(here.parts)
        match here.root:
            case "drive":
                return f"{here.base}:/{rest}"
            case "drive-relative":
                return f"{here.base}:{rest}"
            case "share":
                return "/".join(filter(None, (f"//{here.base}", rest)))
            case "wsl":
                return "/".join(filter(None, (f"//wsl.localhost/{here.base}", rest)))
            case "home":
                return "/".join(filter(None, (f"~{here.base}", rest)))
            case "relative":
                return rest or "."
            case _:
                return f"/{rest}"

    def _seen_from_windows(self, distribution: str | None) -> CrossPlatformPath:
        if self.platform == "windows" or self.root != "posix":
            return self
        if self.platform == "linux" and (match := _WSL_DRIVE.fullmatch(self._posix_text())):
            return self._as("windows", "drive", match[1].upper(), match[2])
        if distribution is not None:
            return self._with("wsl", distribution, self.parts)
        raise ValueError(
            f"{self} has no Windows form: it is under no drive (/mnt/<letter>) and no WSL "
            "distribution is named"
        )

    def to_windows_long(self) -> str:
        r"""The form without the limit of 260 characters: ``\\?\D:\x``, ``\\?\UNC\server\share``.

        Windows takes it literally, so ``..`` is resolved first. Raises `ValueError` for what
        is relative.
        """
        path = self._seen_from_windows(None).normalized()
        text = path.to_windows("backslash")
        if path.root == "drive":
            return f"\\\\?\\{text}"
        if path.root in ("share", "wsl"):
            return f"\\\\?\\UNC\\{text[2:]}"
        raise ValueError(f"{self} is not absolute: the long form has to be")

    def to_posix(self) -> str:
        """As POSIX or, for a Windows path, Git Bash writes it: ``/d/x``, ``//server/share/x``."""
        rest = "/".join(self.parts)
        match self.root:
            case "drive":
                return "/".join(filter(None, (f"/{self.base.lower()}", rest)))
            case "drive-relative":
                raise ValueError(f"{self} depends on the current folder of a drive")
            case "share":
                return "/".join(filter(None, (f"//{self.base}", rest)))
            case "wsl":
                return "/".join(filter(None, (f"//wsl.localhost/{self.base}", rest)))
            case _:
                return self._posix_text()

    def to_wsl(self) -> str:
        r"""As Linux in WSL writes it: ``/mnt/d/x``, or ``/home`` for ``\\wsl$\Ubuntu\home``."""
        if self.root == "drive":
            return "/".join(filter(None, (f"/mnt/{self.base.lower()}", *self.parts)))
        if self.root == "wsl":
            return "/" + "/".join(self.parts)
        if self.root in ("share", "drive-relative"):
            raise ValueError(f"{self} has no form inside of WSL")
        return self._posix_text()

    def to_ssh_path(self) -> str:
        """For a POSIX shell behind SSH: `to_posix`."""
        return self.to_posix()

    def to_sftp_path(self) -> str:
        """For an SFTP server: POSIX, or ``/D:/x`` as the one of Windows takes it."""
        if self.root == "drive":
            return f"/{self.base}:/" + "/".join(self.parts)
        if self.root == "home":
            return "/".join(self.parts) or "."
        return self.to_posix()

    def for_shell_escape(self, shell: Shell = "posix") -> str:
        """One word of a command line, whatever the path holds.

        ``powershell`` and ``cmd`` get the Windows form. A ``~`` stays one for a POSIX shell.
        Raises `ValueError` where ``cmd`` has no way to write it.
        """
        if shell == "posix":
            text = self.to_ssh_path()
            if self.root == "home":
                tilde, _, rest = text.partition("/")
                if re.fullmatch(r"~[\w.-]*", tilde, re.ASCII):
                    return f"{tilde}/{shlex.quote(rest)}" if rest else tilde
            return shlex.quote(f"./{text}" if text.startswith("-") else text)
        text = self.to_windows("backslash")
        if text.startswith("-"):
            text = f".\\{text}"
        if shell == "powershell":
            return "'" + "".join(c * 2 if c in _POWERSHELL_QUOTES else c for c in text) + "'"
        if shell == "cmd":
            if bad := re.search(r'["%\r\n!]', text):
                raise ValueError(f"cmd has no way to write {bad[0]!r} in a path")
            return f'"{text}"'
        raise ValueError(f"a shell is posix, powershell or cmd, not {shell!r}")

    def expanded(self, home: str | Path) -> CrossPlatformPath:
        """With ``home`` in place of a leading ``~``; ``~user`` is a `ValueError`."""
        if self.root != "home":
            return self
        if self.base:
            raise ValueError(f"the home of {self.base!r} is not known here")
        above = CrossPlatformPath(home, self.platform)
        return above / self.parts

    # --- parts ------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The last part; empty for a root."""
        return self.parts[-1] if self.parts else ""

    @property
    def is_absolute(self) -> bool:
        """Whether it means the same in every current folder."""
        return self.root in ("drive", "share", "wsl", "posix")

    def normalized(self) -> CrossPlatformPath:
        """Without ``..``; one that would leave the root stays there, as the system does."""
        parts: list[str] = []
        for part in self.parts:
            if part != "..":
                parts.append(part)
            elif parts and parts[-1] != "..":
                parts.pop()
            elif not self.is_absolute:
                parts.append(part)
        return self._with(self.root, self.base, tuple(parts))

    def relative_to(self, other: CrossPlatformPath) -> tuple[str, ...] | None:
        """The parts below ``other``, or None: by whole parts, after ``..`` is resolved.

        Upper and lower case are the same on Windows and on a Mac, and on a Mac also a letter
        with an accent and the two characters that make it up.
        """
        mine, theirs = self.normalized(), other.normalized()
        if self.platform != other.platform or not (mine.is_absolute and theirs.is_absolute):
            return None
        if mine._key()[:3] != theirs._key()[:3]:
            return None
        below = len(theirs.parts)
        if mine._key()[3][:below] != theirs._key()[3]:
            return None
        return mine.parts[below:]

    def check_windows_names(self) -> None:
        """Raise `ValueError` for the first name that Windows cannot hold."""
        for part in self.parts:
            if part == "..":
                continue
            if match := _NOT_IN_WINDOWS_NAMES.search(part):
                raise ValueError(f"Windows allows no {match[0]!r} in a name: {part!r}")
            if part.endswith((".", " ")):
                raise ValueError(f"Windows drops the end of a name such as {part!r}")
            if _DEVICES.fullmatch(part):
                raise ValueError(f"{part!r} is a device on Windows")

    def __truediv__(self, more: str | tuple[str, ...]) -> CrossPlatformPath:
        parts = tuple(more.split("/")) if isinstance(more, str) else more
        kept = tuple(part for part in parts if part not in ("", "."))
        return self._with(self.root, self.base, (*self.parts, *kept))

    def __str__(self) -> str:
        if self.platform != "windows":
            return self._posix_text()
        return self._windows_text(None).replace("/", "\\")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CrossPlatformPath) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[str, str, str, tuple[str, ...]]:
        if self.platform == "linux":
            return (self.platform, self.root, self.base, self.parts)
        parts = self.parts
        if self.platform == "mac":  # its file systems take both spellings of an accent for one
            parts = tuple(unicodedata.normalize("NFC", part) for part in parts)
        folded = tuple(part.casefold() for part in parts)
        return (self.platform, self.root, self.base.casefold(), folded)

    def _posix_text(self) -> str:
        rest = "/".join(self.parts)
        if self.root == "posix":
            return f"/{rest}"
        if self.root == "home":
            return "/".join(filter(None, (f"~{self.base}", rest)))
        return rest or "."

    def _with(self, root: Root, base: str, parts: tuple[str, ...]) -> CrossPlatformPath:
        made = CrossPlatformPath.__new__(CrossPlatformPath)
        made.__attrs_init__(self.platform, root, base, parts)
        return made

    @staticmethod
    def _as(platform: Platform, root: Root, base: str, rest: str) -> CrossPlatformPath:
        made = CrossPlatformPath.__new__(CrossPlatformPath)
        parts = tuple(part for part in rest.split("/") if part not in ("", "."))
        made.__attrs_init__(platform, root, base, parts)
        return made


def _looks_like_windows(text: str) -> bool:
    return bool(re.match(r"[A-Za-z]:(?:[\\/]|$)", text)) or text.startswith("\\\\")


def _posix(text: str) -> tuple[Root, str, str]:
    if text.startswith("/"):
        return "posix", "", text
    if text.startswith("~"):
        user, _, rest = text[1:].partition("/")
        return "home", user, rest
    return "relative", "", text


def _windows(text: str) -> tuple[Root, str, str]:
    text = text.replace("\\", "/")
    if text[:4] in ("//?/", "//./"):
        text = text[4:]
        if text[:4].upper() == "UNC/":
            text = f"//{text[4:]}"
    if text.startswith("//"):
        server, share, rest = (*text.lstrip("/").split("/", 2), "", "")[:3]
        if server.casefold() in _WSL_SERVERS:
            if not share:
                raise ValueError("a WSL path names a distribution")
            return "wsl", share, rest
        if not server or not share:
            raise ValueError("a UNC path names a server and a share")
        return "share", f"{server}/{share}", rest
    if match := _DRIVE.fullmatch(text):
        relative = bool(match[2]) and not match[2].startswith("/")
        return ("drive-relative" if relative else "drive"), match[1].upper(), match[2]
    if match := _BASH_DRIVE.fullmatch(text):
        return "drive", match[1].upper(), match[2]
    return _posix(text)
