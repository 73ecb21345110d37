"""Where records enter: secrets are replaced, text made valid, lengths bounded.

This happens once, before anything else of Linnix sees a record, so no sink can show what
another hides. Better one argument too many than one password in a log.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from linnix_core.escape import valid
from linnix_core.records import (
    Alert,
    CgroupSample,
    Evidence,
    Loss,
    ProcessEvent,
    ProcessSample,
    Subject,
    SystemSample,
)

__all__ = [
    "CLEANERS",
    "MARK",
    "MAX_ARGS_CHARS",
    "clean_alert",
    "clean_args",
    "clean_event",
    "clean_text",
]

#: What stands in place of a secret.
MARK = "[redacted]"

#: Characters kept of all arguments together, of one path, of a process name.
MAX_ARGS_CHARS = 4096
MAX_PATH_CHARS = 4096
MAX_COMM_CHARS = 64
MAX_ARGS = 256

# Words that name a secret, wherever they stand in a name: --db-password, AWS_SECRET_KEY.
_WORDS = (
    r"passw(?:or)?d|passwd|passphrase|pwd|secret|token|api[-_]?key|apikey|access[-_]?key"
    r"|private[-_]?key|credentials?|auth(?:orization)?|bearer|session[-_]?id|cookie|signature"
)
# --name=value, NAME=value, "name": "value", name:value. The name keeps its place.
_ASSIGNED = re.compile(
    rf"(?P<name>[\w.\-]*(?:{_WORDS})[\w.\-]*[\"']?\s*[=:]\s*)(?P<quote>[\"']?)"
    r"(?P<value>(?:(?:bearer|basic|token)\s+)?[^\s\"'&;,]+)(?P=quote)",
    re.IGNORECASE,
)
# An argument that only names: its value is the next one.
_NAMING = re.compile(rf"--?[\w\-]*(?:{_WORDS})[\w\-]*|-pass(?:in|out)?", re.IGNORECASE)
# An argument that is nothing but such an assignment: all of the rest is the value.
_WHOLE = re.compile(
    rf"--?[\w.\-]*(?:{_WORDS})[\w.\-]*=|\w*(?:{_WORDS})\w*=|pass:|-passin=", re.IGNORECASE
)
_SPACE = re.compile(r"(\s+)")
# Names that look like it and carry no secret, or carry a path to one.
_HARMLESS = re.compile(
    r"--?(?:no-[\w\-]*|[\w\-]*(?:-file|-path|-stdin|-prompt|-fd|-dir|-type|-mode|-method|-plugin|"
    r"-timeout|-sock|-ttl|-env|-name|-id))|--author[\w\-]*|-pwd",
    re.IGNORECASE,
)
_USERINFO = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.\-]*://)(?P<user>[^\s/:@]*):[^\s/@]+@", re.IGNORECASE
)
# Credentials that tell by their own shape.
_SHAPES = re.compile(
    r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"  # AWS access key id
    r"|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}|\bglpat-[\w\-]{16,}"  # forges
    r"|\bxox[abeoprs]-[\w\-]{8,}|\bhooks\.slack\.com/services/[\w/]+"  # Slack
    r"|\b[rs]k_(?:live|test)_\w{8,}|\bsk-[\w\-]{16,}|\bAIza[\w\-]{30,}|\bhf_[A-Za-z0-9]{20,}"
    r"|\bnpm_[A-Za-z0-9]{30,}|\bpypi-[\w\-]{16,}|\bdop_v1_[a-f0-9]{32,}"
    r"|\beyJ[\w\-]{8,}\.[\w\-]{8,}\.[\w\-]*"  # a JSON Web Token
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    re.DOTALL,
)
_HEADER = re.compile(r"\b(?P<scheme>bearer|basic)\s+[A-Za-z0-9+/=._~\-]{8,}", re.IGNORECASE)

# Unless one of these stands somewhere in the small letters, nothing above can match: a few
# substring searches cost a tenth of one search for the expressions.
_STEMS = (
    "pass", "pwd", "secret", "token", "key", "cred", "auth", "bearer", "basic", "session",
    "cookie", "signature", "://", "akia", "asia", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_",
    "glpat-", "xox", "slack", "k_live_", "k_test_", "sk-", "aiza", "hf_", "npm_", "pypi-", "dop_",
    "eyj", "mysql", "mariadb", "redis-cli", "valkey-cli", "curl", "wget", "ldap", "smbclient",
    "ipmitool",
)  # fmt: skip

# Programs whose options take a password, by the spelling of the option.
_ATTACHED = {
    "-p": frozenset(
        {"mysql", "mysqldump", "mysqladmin", "mysqlimport", "mariadb", "mariadb-dump", "sshpass"}
    ),
    "-a": frozenset({"redis-cli", "valkey-cli"}),
}
_NEXT = {
    "-p": frozenset({"sshpass", "smbclient", "ipmitool"}),
    "-P": frozenset({"ipmitool"}),
    "-a": frozenset({"redis-cli", "valkey-cli"}),
    "-w": frozenset({"ldapsearch", "ldapmodify", "ldapadd", "ldapdelete", "ldappasswd"}),
}
_USER_NEXT = {
    option: frozenset({"curl", "wget", "smbclient"})
    for option in ("-u", "--user", "--proxy-user", "-U", "-a")
}
_PROGRAMS = frozenset().union(*_ATTACHED.values(), *_NEXT.values(), *_USER_NEXT.values())


def _suspect(text: str) -> bool:
    small = text.lower()
    return any(stem in small for stem in _STEMS)


def clean_text(text: str) -> str:
    """One text without secrets that tell by themselves, valid as UTF-8.

    >>> clean_text("postgresql://app:hunter2@db/prod?sslmode=require")
    'postgresql://app:[redacted]@db/prod?sslmode=require'
    """
    text = valid(text)
    if not _suspect(text):
        return text
    text = _SHAPES.sub(MARK, text)
    text = _USERINFO.sub(rf"\g<scheme>\g<user>:{MARK}@", text)
    text = _ASSIGNED.sub(rf"\g<name>\g<quote>{MARK}\g<quote>", text)
    return _HEADER.sub(rf"\g<scheme> {MARK}", text)


def clean_args(args: tuple[str, ...]) -> tuple[str, ...]:
    """Arguments without secrets, each in its place.

    >>> clean_args(("mysql", "-uroot", "-phunter2", "--password", "hunter2", "shop"))
    ('mysql', '-uroot', '-p[redacted]', '--password', '[redacted]', 'shop')
    """
    if not _suspect(" ".join(args)):
        return args if all(map(str.isascii, args)) else tuple(map(valid, args))
    return tuple(_clean_words(args))


def _clean_words(words: Iterable[str]) -> Iterator[str]:
    """Follow a command word by word; one that holds a command itself is followed too."""
    program = ""
    value_follows = user_follows = False
    for position, word in enumerate(words):
        if value_follows and word:
            yield MARK
            value_follows = False
            continue
        if user_follows and ":" in word:
            yield f"{valid(word.partition(':')[0])}:{MARK}"
            user_follows = False
            continue
        name = word.rpartition("/")[2]
        program = name if name in _PROGRAMS else program
        user_follows = program in _USER_NEXT.get(word, ())
        value_follows = program in _NEXT.get(word, ()) or (
            position > 0
            and _NAMING.fullmatch(word) is not None
            and _HARMLESS.fullmatch(word) is None
        )
        option = word[:2]
        if len(word) > 2 and program in _ATTACHED.get(option, ()):
            yield f"{option}{MARK}"
        elif whole := _WHOLE.match(word):
            yield f"{whole[0]}{MARK}"
        elif _SPACE.search(word):
            parts = _SPACE.split(clean_text(word))
            inner = _clean_words(parts[::2])
            gaps = [*parts[1::2], ""]
            yield "".join(part + gap for part, gap in zip(inner, gaps, strict=True))
        else:
            yield clean_text(word)


#: Argument lists that were found clean, so that a busy host's repeated commands cost a lookup.
_clean_before: set[tuple[str, ...]] = set()


def clean_event(event: ProcessEvent) -> None:
    """Clean an event in place. ``TypeError`` for one that cannot be told from others."""
    if type(event.pid) is not int or type(event.start_ns) is not int:
        raise TypeError("pid and start_ns must be whole numbers")
    args = event.args
    if args and args not in _clean_before:
        event.args = _bounded_args(args, event)
        if event.args == args:
            if len(_clean_before) >= 4096:
                _clean_before.clear()
            _clean_before.add(args)
    if not (event.comm.isascii() and len(event.comm) <= MAX_COMM_CHARS):
        event.comm = _bounded(event.comm, MAX_COMM_CHARS, event)
    if event.exe is not None and not (event.exe.isascii() and len(event.exe) <= MAX_PATH_CHARS):
        event.exe = _bounded(event.exe, MAX_PATH_CHARS, event)
    if event.cwd is not None:
        event.cwd = _bounded(event.cwd, MAX_PATH_CHARS, event)
    if event.cgroup is not None and not (
        event.cgroup.isascii() and len(event.cgroup) <= MAX_PATH_CHARS
    ):
        event.cgroup = _bounded(event.cgroup, MAX_PATH_CHARS, event)


def clean_sample(sample: ProcessSample) -> None:
    """Clean a sample in place."""
    if type(sample.pid) is not int or type(sample.start_ns) is not int:
        raise TypeError("pid and start_ns must be whole numbers")
    if not (sample.comm.isascii() and len(sample.comm) <= MAX_COMM_CHARS):
        sample.comm = valid(sample.comm[:MAX_COMM_CHARS])
    if sample.cgroup is not None and not sample.cgroup.isascii():
        sample.cgroup = valid(sample.cgroup[:MAX_PATH_CHARS])


def clean_cgroup(sample: CgroupSample) -> None:
    """Clean a sample of a cgroup in place."""
    sample.cgroup = valid(sample.cgroup[:MAX_PATH_CHARS])


def _nothing(record: SystemSample | Loss) -> None:
    """Nothing in it was chosen by a process."""


#: How to clean each type of record that a collector may emit.
CLEANERS: dict[type, Callable[[Any], None]] = {
    ProcessEvent: clean_event,
    ProcessSample: clean_sample,
    CgroupSample: clean_cgroup,
    SystemSample: _nothing,
    Loss: _nothing,
}


def _bounded(text: str, limit: int, event: ProcessEvent) -> str:
    if len(text) > limit:
        event.truncated = True
        text = text[:limit]
    return valid(text)


def _bounded_args(args: tuple[str, ...], event: ProcessEvent) -> tuple[str, ...]:
    args = tuple(args)
    # Cut only after cleaning: a cut could hide that what is left belongs to a secret.
    room, kept = MAX_ARGS_CHARS, []
    for arg in clean_args(tuple(arg[: 4 * MAX_ARGS_CHARS] for arg in args[:MAX_ARGS])):
        kept.append(arg[:room])
        room -= len(arg)
        if room <= 0:
            break
    if len(kept) < len(args) or room < 0:
        event.truncated = True
    return tuple(kept)


def clean_alert(alert: Alert) -> None:
    """Clean an alert in place: whoever raised it may have quoted a process."""
    alert.message = clean_text(alert.message)[:1000]
    alert.rule = clean_text(alert.rule)[:200]
    alert.actions = tuple(clean_text(action)[:160] for action in alert.actions[:3])
    subject = alert.subject
    alert.subject = Subject(
        key=subject.key,
        exe=None if subject.exe is None else clean_text(subject.exe)[:MAX_PATH_CHARS],
        comm=clean_text(subject.comm)[:MAX_COMM_CHARS],
        cgroup=None if subject.cgroup is None else clean_text(subject.cgroup)[:MAX_PATH_CHARS],
    )
    alert.evidence = tuple(alert.evidence[:32])


def is_alert(value: Any) -> bool:
    """Whether this has the types of an alert, deep enough for everything behind it."""
    return (
        isinstance(value, Alert)
        and all(isinstance(part, str) for part in (value.rule, value.message))
        and isinstance(value.subject, Subject)
        and all(isinstance(item, Evidence) for item in value.evidence)
    )
