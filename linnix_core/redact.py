"""Where records enter: secrets are replaced, text made valid, lengths bounded.

This happens once, before anything else of Linnix sees a record, so no sink can show what
another hides. Better one argument too many than one password in a log.

The text is hostile: every expression here takes time that grows with the length of the
text and not with its square, so that no process can stall the pipeline by its arguments.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from linnix_core.escape import valid
from linnix_core.records import (
    CLASSES,
    SEVERITIES,
    VERDICTS,
    Alert,
    CgroupSample,
    Evidence,
    Feedback,
    Loss,
    ProcessEvent,
    ProcessKey,
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
    "clean_feedback",
    "clean_records",
    "clean_text",
    "is_alert",
    "is_feedback",
]

#: What stands in place of a secret.
MARK = "[redacted]"

#: Characters kept of all arguments together, of one path, of a process name.
MAX_ARGS_CHARS = 4096
MAX_PATH_CHARS = 4096
MAX_COMM_CHARS = 64
MAX_ARGS = 256

# --- names that say that their value is a secret: --db-password, AWS_SECRET_ACCESS_KEY ----

_SECRET_NAME = re.compile(
    r"passw(?:or)?d|passphrase|pass(?:in|out)$|secret|token(?!i[sz])|credential|bearer"
    r"|authorization|session[-_]?id|sessid|.pwd$|^pwd$|[a-z]pass$"
    r"|(?:api|auth|access|private|account|shared|signing|encryption|master|hmac|app)[-_]?key"
    # Words that are parts of others (author, compass): only where they stand alone.
    r"|(?<![a-z])(?:pass|auth|cookie|psk|sig|signature)(?![a-z])"
)
# Names that only look like it, and those of what describes a secret or says where it is.
_HARMLESS_NAME = re.compile(
    r"^-*(?:no|max|min|num|show|list|verify|load|save)[-_]|^--?pwd$"
    r"|(?:by|com|low|high|band|all|multi|over|one|two|first|second|single|ask)[-_]?pass$"
    r"|(?:file|path|dir|jar|stdin|prompt|fd|type|mode|method|plugin|timeout|sock|socket|ttl|env"
    r"|name|user|key[-_]?id|url|uri|length|limit|count|lifetime|helper|store|provider|policy|through)$"
)
# Values that are none, and paths where a path is what the name usually has.
_NO_SECRET = re.compile(r"true|false|yes|no|on|off|none|null|\d{1,2}", re.IGNORECASE)
_HAS_PATH = re.compile(r"private[-_]?key|credential|cookie|^(?:old)?pwd$")


@functools.lru_cache(maxsize=1024)
def _is_secret(name: str) -> bool:
    """Whether a name, in small letters, says that its value is a secret."""
    return bool(_SECRET_NAME.search(name)) and not _HARMLESS_NAME.search(name)


def _names_secret(name: str) -> bool:
    return _is_secret(name[-200:].lower())


def _is_secret_value(name: str, value: str) -> bool:
    if not value or _NO_SECRET.fullmatch(value):
        return False
    is_path = value.startswith(("/", "~/", "./", "../")) and not value.endswith("=")
    return not (is_path and _HAS_PATH.search(name[-200:].lower()))


# --- what tells by itself, wherever it stands in a text -----------------------------------

# The name and the sign of an assignment: name=, "name": , \"name\": , name => , name:
_NAME = re.compile(r"(?<![\w.\-])(?P<name>[\w.\-]++)\\*[\"']?\s*+(?:=>|:=|(?P<colon>:)|=)\s*+")
_VALUE = re.compile(
    # Not possessive: before 3.11.5 Python gets that wrong for a group (gh-106052), and
    # nothing follows that could make it go back.
    r"(?P<quote>[\"'])(?:\\.|(?!(?P=quote)).)*"
    r"|(?P<escaped>\\+[\"'])(?:(?!(?P=escaped)).)*"
    r"|(?:(?:bearer|basic|token|digest|apikey)\s+)?[^\s\"'&;]++",
    re.IGNORECASE | re.DOTALL,
)
# The value of such a header is the rest of its line.
_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie"})
_REST = re.compile(r"[^\r\n\"']*+")

# A password in a URL. Without an @ the text was cut, unless it is a port.
_USERINFO = re.compile(
    r"://(?P<user>[^\s/:@\"'\[\]]{0,128}+):"
    r"(?:[^\s/\"']{1,512}(?P<at>@)|(?!\d{1,5}+(?:[/?#\s\"']|\Z)|[${])"
    r"(?:[^\s\"']{1,128}(?P<late>@)|[^\s/\"']{1,512}+\Z))"
)
# A token in place of user and password.
_LONE_USER = re.compile(r"://[\w\-]{20,512}+@")

# Credentials that tell by their own shape.
_SHAPES = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])"  # AWS access key id
    r"|gh[pousr]_[A-Za-z0-9]{20,}+|github_pat_\w{20,}+|glpat-[\w\-]{16,}+"  # forges
    r"|xox[abeoprs]-[\w\-]{8,}+|hooks\.slack\.com/services/[\w/]++"
    r"|discord(?:app)?\.com/api/webhooks/[\w/\-]++|bot\d{6,12}:[\w\-]{30,}+"  # Discord, Telegram
    r"|[rs]k_(?:live|test)_\w{8,}+|sk-[\w\-]{16,}+|AIza[\w\-]{30,}+|GOCSPX-[\w\-]{20,}+"
    r"|hf_[A-Za-z0-9]{20,}+|npm_[A-Za-z0-9]{30,}+|pypi-[\w\-]{16,}+|dckr_pat_[\w\-]{16,}+"
    r"|dop_v1_[a-f0-9]{32,}+|hv[sb]\.[\w\-]{20,}+|glsa_\w{20,}+|tskey-[\w\-]{16,}+"
    r"|AGE-SECRET-KEY-1[A-Z0-9]{20,}+"
    r"|(?<![\w\-])eyJ[\w\-]{8,}+\.[\w\-]{8,}+\.[\w\-]*+)"  # a JSON Web Token
    r"|-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z)",
    re.DOTALL,
)
_SCHEME = re.compile(r"\b(?P<scheme>bearer|basic)\s++[A-Za-z0-9+/=._~\-]{8,}+", re.IGNORECASE)

# --- programs that take a password under a name that does not say so -------------------


class _Ways(NamedTuple):
    """How a program takes secrets."""

    #: ``-pSECRET``: options to which the value is attached.
    attached: tuple[str, ...] = ()
    #: ``-p SECRET``: options whose value is the next word.
    follows: tuple[str, ...] = ()
    #: ``-u NAME:SECRET``; ``%`` and ``,`` divide as well.
    user: tuple[str, ...] = ()
    #: ``NAME/SECRET@WHERE`` as a word.
    slash: bool = False
    #: The last word is one.
    last: bool = False


def _takes(*options: str) -> _Ways:
    return _Ways(attached=options, follows=options)


_WAYS = {
    name: ways
    for names, ways in (
        ("mysql mysqldump mysqladmin mysqlimport mysqlshow mysqlcheck", _Ways(attached=("-p",))),
        ("mariadb mariadb-dump mariadb-admin mysqlsh", _Ways(attached=("-p",))),
        ("7z 7za 7zr rar unrar", _Ways(attached=("-p", "-hp"))),
        ("xfreerdp wlfreerdp", _Ways(attached=("/p:",))),
        ("sshpass mongo mongosh mongodump mongorestore mongoexport mongoimport", _takes("-p")),
        ("cqlsh cypher-shell beeline rabbitmqadmin rdesktop twine yt-dlp", _takes("-p")),
        ("youtube-dl useradd usermod login", _takes("-p")),
        ("sqlcmd bcp tsql zip unzip ipmitool p4 mosquitto_pub mosquitto_sub", _takes("-P")),
        ("ssh-keygen", _takes("-N", "-P")),
        ("redis-cli valkey-cli", _takes("-a")),
        ("ldapsearch ldapmodify ldapadd ldapdelete ldappasswd", _takes("-w")),
        ("snmpget snmpset snmpwalk snmpbulkwalk", _takes("-c", "-A", "-X")),
        ("openssl", _Ways(follows=("-k", "-K"))),
        ("nmcli", _Ways(follows=("password", "wifi-sec.psk"))),
        ("aws", _Ways(follows=("aws_secret_access_key", "aws_session_token"))),
        ("curl", _Ways(user=("-u", "--user", "-U", "--proxy-user", "-E", "--cert"))),
        ("http https", _Ways(user=("-a",))),
        ("smbclient rpcclient smbget", _Ways(user=("-U", "--user"))),
        ("lftp etcdctl", _Ways(user=("-u", "--user"))),
        ("sqlplus sqlldr expdp impdp rman", _Ways(slash=True)),
        ("htpasswd wpa_passphrase", _Ways(last=True)),
    )
    for name in names.split()
}
# What `_is_innocent` goes by: small letters, with a space for what else than a slash may stand
# around the name of a program in a command of a shell, or is not ASCII, and one digit for all,
# so that commands that differ in numbers cost a lookup. No stem has any of these in it, and
# the names are compared in the same form: whatever is there is still seen.
_AROUND = b"\t\n\v\f\r\x1c\x1d\x1e\x1f\"'();|&`$" + bytes(range(128, 256))
_PLAIN = bytes.maketrans(b"123456789" + _AROUND, b"0" * 9 + b" " * len(_AROUND))
_PROGRAMS = frozenset(name.encode().translate(_PLAIN) for name in _WAYS)
_OPTION = re.compile(r"--?[\w.\-]++")
_ASSIGNMENT = re.compile(r"(?P<name>-{0,2}[\w.\-]++)=|pass:")
_SLASH = re.compile(r"(?P<user>[\w$]++)/(?!/)[^\s/@]++(?P<where>@\S*+)?")
_USER = re.compile(r"[^:%,]*+[:%,](?=.)", re.DOTALL)
_SPACE = re.compile(r"\s")
_CLUSTER = re.compile(r"-[A-Za-z#]{1,7}+")
_PIECES = re.compile(r"\s++|(?:\"[^\"]*+\"|'[^']*+'|[^\s\"']|[\"'])++")

# Unless one of these stands somewhere in the small letters, or a program from above is
# named, nothing here can match. Ordered as a tree, so that at most places in a text a
# comparison with the few letters that any of them begins with is all.
_STEMS = re.compile(
    r"p(?:ass|wd|sk|ypi-)|s(?:e(?:cret|ss)|ig|k-)|token|k(?:ey|_(?:live|test)_)|c(?:red|ookie)"
    r"|a(?:uth|kia|sia|iza)|b(?:earer|asic|ot)|://|g(?:h[pousr]_|l(?:pat-|sa_)|ocspx)|_pat_|xox"
    r"|h(?:ooks|f_|v[sb]\.)|npm_|dop_|eyj"
)


def clean_text(text: str) -> str:
    """One text without secrets that tell by themselves, valid as UTF-8.

    >>> clean_text("postgresql://app:hunter2@db/prod?sslmode=require")
    'postgresql://app:[redacted]@db/prod?sslmode=require'
    """
    text = valid(text)
    if not _STEMS.search(text.lower()):
        return text
    text = _SHAPES.sub(MARK, text)
    text = _USERINFO.sub(_without_password, text)
    text = _LONE_USER.sub(f"://{MARK}@", text)
    return _SCHEME.sub(rf"\g<scheme> {MARK}", "".join(_clean_assignments(text)))


def _without_password(found: re.Match[str]) -> str:
    return f"://{found['user']}:{MARK}{found['at'] or found['late'] or ''}"


def _clean_assignments(text: str) -> Iterator[str]:
    at = 0
    for found in _NAME.finditer(text):
        name = found["name"]
        if found.start() < at or not _names_secret(name):
            continue
        value = _VALUE.match(text, found.end())
        if value is None:
            continue
        quote = value["quote"] or value["escaped"] or ""
        if _is_secret_value(name, value[0].removeprefix(quote)):
            yield f"{text[at : found.end()]}{quote}{MARK}"
            at = value.end()
            if found["colon"] and not quote and name.lower() in _HEADERS:
                at = _REST.match(text, at).end()  # type: ignore[union-attr]
    yield text[at:]


def clean_args(args: tuple[str, ...]) -> tuple[str, ...]:
    """Arguments without secrets, each in its place.

    >>> clean_args(("mysql", "-uroot", "-phunter2", "--password", "hunter2", "shop"))
    ('mysql', '-uroot', '-p[redacted]', '--password', '[redacted]', 'shop')
    """
    return args if _is_innocent(" ".join(args)) else tuple(_clean_words(args))


#: Plain texts that are innocent, and their words: most of a new command has been in others
#: before it.
_innocent: set[bytes] = set()


def _is_innocent(text: str) -> bool:
    """Whether there is nothing to clean in it, nor a program that makes others' names secret.

    All arguments of a command may be one text: nothing that it looks for has a space in it.
    """
    try:
        plain = text.lower().encode().translate(_PLAIN)
    except UnicodeEncodeError:
        return False
    if plain in _innocent:
        return True
    if b"://" in plain:  # the only stem with a slash
        return False
    new = set(plain.replace(b"/", b" ").split()) - _innocent
    if _STEMS.search(b" ".join(new).decode()) or not _PROGRAMS.isdisjoint(new):
        return False
    for known in (plain, *new):
        if len(known) <= _REMEMBERED_CHARS:
            _remember(_innocent, known)
    return True


def _clean_words(words: Sequence[str], depth: int = 8) -> Iterator[str]:
    """Follow a command word by word; one that holds a command itself is followed too."""
    ways = _Ways()
    naming = ""
    user_follows = False
    for position, word in enumerate(words):
        name = word.rpartition("/")[2].lstrip("\"'();|&`$")
        is_option = position > 0 and _OPTION.fullmatch(word) is not None
        if naming and not (is_option and _names_secret(word)):
            # A flag that only looks like it must not hide the option after it.
            yield MARK if word and _is_secret_value(naming, word) else valid(word)
            naming = ""
            continue
        if user_follows and (user := _USER.match(word)):
            yield f"{valid(user[0])}{MARK}"
            user_follows = False
            continue
        if name in _WAYS and (name != "login" or position):
            ways = _WAYS[name]
        elif name == "ssh":
            ways = _Ways()  # what follows is not for sshpass
        user_follows = word in ways.user or (
            f"-{word[-1:]}" in ways.user and _CLUSTER.fullmatch(word) is not None
        )
        naming = word if word in ways.follows or (is_option and _names_secret(word)) else ""
        if position and position == len(words) - 1 and ways.last:
            yield MARK
        elif attached := _attached(word, ways):
            yield f"{valid(attached)}{MARK}"
        elif ways.slash and (divided := _SLASH.fullmatch(word)):
            yield valid(f"{divided['user']}/{MARK}{divided['where'] or ''}")
        else:
            yield _clean_word(word, depth)


def _attached(word: str, ways: _Ways) -> str | None:
    """The option and what comes before the secret, if the word is one with a secret attached."""
    for option in ways.attached:
        if word.startswith(option) and word != option:
            return option
    for option in ways.user:
        prefix = f"{option}=" if option.startswith("--") else option
        if word.startswith(prefix) and (user := _USER.match(word, len(prefix))):
            return word[: user.end()]
    return None


def _clean_word(word: str, depth: int) -> str:
    if depth and "'" in word:
        # A quote inside of quotes, as shells and those who write for them spell it.
        flat = word.replace("'\"'\"'", '"').replace("'\\''", '"')
        if flat != word:
            if (cleaned := _clean_word(flat, depth - 1)) != flat:
                return cleaned
            depth = 0
    whole = _ASSIGNMENT.match(word)
    if whole and (whole["name"] is None or _names_secret(whole["name"])):
        # An argument that is nothing but an assignment: all of the rest is the value.
        if _is_secret_value(whole["name"] or "", word[whole.end() :]):
            return f"{valid(whole[0])}{MARK}"
        return valid(word)
    word = clean_text(word)
    if not depth or not _SPACE.search(word):
        return word
    pieces = _PIECES.findall(word)
    if len(pieces) > 1:
        inner = _clean_words([piece for piece in pieces if not piece.isspace()], depth - 1)
        return "".join(piece if piece.isspace() else next(inner) for piece in pieces)
    if word[0] in "\"'" and word[-1] == word[0]:
        return f"{word[0]}{_clean_word(word[1:-1], depth - 1)}{word[0]}"
    return word


#: What was found clean before, so that a busy host's repeated commands cost a lookup.
_known_args: set[tuple[str, ...]] = set()
_known_comms: set[str] = set()
_known_paths: set[str] = set()

#: How many of each are remembered until all are forgotten, and of how many characters: who
#: gives themselves new long names all the time is not to fill the memory.
_REMEMBERED = 4096
_REMEMBERED_CHARS = 256


def clean_event(event: ProcessEvent) -> None:
    """Clean an event in place. ``TypeError`` for one that cannot be told from others."""
    comm, parent, parent_start = event.comm, event.ppid, event.parent_start_ns
    if not (
        type(event.pid) is type(event.start_ns) is int
        and type(comm) is type(event.boot_id) is str
        and (parent is None or type(parent) is int)
        and (parent_start is None or type(parent_start) is int)
    ):
        raise TypeError("pids and start times must be whole numbers, comm and boot_id texts")
    if comm not in _known_comms:
        event.comm = _clean_name(comm, _known_comms, MAX_COMM_CHARS, event)
    cgroup = event.cgroup
    if cgroup is not None and cgroup not in _known_paths:
        event.cgroup = _clean_name(cgroup, _known_paths, MAX_PATH_CHARS, event)
    args, exe, cwd = event.args, event.exe, event.cwd
    if args and args not in _known_args:
        event.args = _bounded_args(args, event)
    if exe is not None and exe not in _known_paths:
        event.exe = _clean_name(exe, _known_paths, MAX_PATH_CHARS, event)
    if cwd is not None and cwd not in _known_paths:
        event.cwd = _clean_name(cwd, _known_paths, MAX_PATH_CHARS, event)


def _clean_name(text: str, clean: set[str], limit: int, event: ProcessEvent | None = None) -> str:
    """A text of a limited length; remembers those that are fine as they are."""
    cleaned = _cut(text, limit) if event is None else _bounded(text, limit, event)
    if cleaned == text and len(text) <= _REMEMBERED_CHARS:
        _remember(clean, text)
    return cleaned


def _remember(clean: set[Any], found: Any) -> None:
    if len(clean) >= _REMEMBERED:
        clean.clear()
    clean.add(found)


def clean_sample(sample: ProcessSample) -> None:
    """Clean a sample in place."""
    if (
        type(sample.pid) is not int
        or type(sample.start_ns) is not int
        or type(sample.boot_id) is not str
    ):
        raise TypeError("pid and start_ns must be whole numbers, boot_id a text")
    comm, cgroup = sample.comm, sample.cgroup
    if comm not in _known_comms:
        sample.comm = _clean_name(comm, _known_comms, MAX_COMM_CHARS)
    if cgroup is not None and cgroup not in _known_paths:
        sample.cgroup = _clean_name(cgroup, _known_paths, MAX_PATH_CHARS)


def clean_cgroup(sample: CgroupSample) -> None:
    """Clean a sample of a cgroup in place."""
    sample.cgroup = _cut(sample.cgroup, MAX_PATH_CHARS)


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


def clean_records(records: Iterable[Any]) -> list[Any]:
    """Clean records in place; those of them that are valid, in their order."""
    cleaners = CLEANERS
    clean: list[Any] = []
    for record in records:
        try:
            cleaners[type(record)](record)
        except (KeyError, TypeError, ValueError, AttributeError):
            # No record, or one with a text that is none: its collector shows the count.
            continue
        clean.append(record)
    return clean


def _cut(text: str, limit: int) -> str:
    # Once more at the end: bytes that are no text grow when they are written out.
    return valid(text[:limit])[:limit]


def _bounded(text: str, limit: int, event: ProcessEvent) -> str:
    whole = valid(text[: limit + 1])
    if len(whole) > limit:
        event.truncated = True
    return whole[:limit]


def _bounded_args(args: tuple[str, ...], event: ProcessEvent) -> tuple[str, ...]:
    args = given = tuple(args)
    text = " ".join(args)
    if len(args) > MAX_ARGS or len(text) >= MAX_ARGS_CHARS:
        # Far more than is kept goes into the cleaning, and the rest is cut after it: a cut could
        # hide that what is left belongs to a secret.
        given = _first(args, 4 * MAX_ARGS_CHARS)
        text = " ".join(given)
    cleaned = kept = given if _is_innocent(text) else tuple(_clean_words(given))
    if cleaned is not args:
        kept = _first(cleaned, MAX_ARGS_CHARS)
        if len(kept) < len(args) or kept != cleaned:
            event.truncated = True
    if kept == args and len(text) <= _REMEMBERED_CHARS:
        _remember(_known_args, args)
    return kept


def _first(args: tuple[str, ...], room: int) -> tuple[str, ...]:
    """Of the arguments as many as are kept and have room together, the last of them cut."""
    kept = []
    for arg in args[:MAX_ARGS]:
        kept.append(arg[:room])
        room -= len(arg)
        if room <= 0:
            break
    return tuple(kept)


def clean_alert(alert: Alert) -> None:
    """Clean an alert in place: whoever raised it may have quoted a process."""
    alert.message = _clean_cut(alert.message, 1000)
    alert.rule = _clean_cut(alert.rule, 200)
    alert.actions = tuple(_clean_cut(action, 160) for action in alert.actions[:3])
    subject = alert.subject
    alert.subject = Subject(
        key=subject.key,
        exe=None if subject.exe is None else _clean_cut(subject.exe, MAX_PATH_CHARS),
        comm=_clean_cut(subject.comm, MAX_COMM_CHARS),
        cgroup=None if subject.cgroup is None else _clean_cut(subject.cgroup, MAX_PATH_CHARS),
    )
    alert.evidence = tuple(
        Evidence(_cut(item.name, 200), item.value, _cut(item.unit, 200))
        for item in alert.evidence[:32]
        if abs(item.value) < 2**63  # JSON has no words for infinity, NaN and the rest
    )


def clean_feedback(feedback: Feedback) -> None:
    """Clean what a person typed, in place."""
    feedback.incident = _clean_cut(feedback.incident, 200)
    feedback.note = _clean_cut(feedback.note, 1000)
    feedback.by = _clean_cut(feedback.by, 200)


def is_feedback(value: Any) -> bool:
    """Whether this has the types of a feedback."""
    return (
        isinstance(value, Feedback)
        and value.verdict in VERDICTS
        and all(isinstance(text, str) for text in (value.incident, value.note, value.by))
    )


def _clean_cut(text: str, limit: int) -> str:
    return clean_text(text[: 4 * MAX_ARGS_CHARS])[:limit]


def is_alert(value: Any) -> bool:
    """Whether this has the types of an alert, deep enough for everything behind it."""
    return (
        isinstance(value, Alert)
        and value.severity in SEVERITIES
        and (value.class_ is None or value.class_ in CLASSES)
        and all(isinstance(text, str) for text in (value.rule, value.message, *value.actions))
        and _is_subject(value.subject)
        and all(map(_is_evidence, value.evidence))
    )


def _is_subject(value: Any) -> bool:
    return (
        isinstance(value, Subject)
        and isinstance(value.comm, str)
        and all(text is None or isinstance(text, str) for text in (value.exe, value.cgroup))
        and (value.key is None or isinstance(value.key, ProcessKey))
    )


def _is_evidence(value: Any) -> bool:
    return (
        isinstance(value, Evidence)
        and isinstance(value.name, str)
        and isinstance(value.unit, str)
        and type(value.value) in (int, float)
    )
