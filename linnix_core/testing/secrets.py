"""Secrets on command lines, to search for in whatever a component shows, sends or writes.

    agent = linnix_runtime(
        handlers={"quoting": QuotingRule, "mine": MyHandler}, records=commands_with_secrets(seed=1)
    )
    assert leaked(what_mine_sent, seed=1) == []

`QuotingRule` makes an incident of every command and quotes all of its arguments: the worst
that a rule can do.
"""

from __future__ import annotations

import random
import shlex
import string
import time

from linnix_core.batch import Batch
from linnix_core.hookspecs import hookimpl
from linnix_core.records import Alert, ProcessEvent, Subject

__all__ = [
    "POSITIONS",
    "QuotingRule",
    "command_lines",
    "commands_with_secrets",
    "leaked",
    "shapes",
]

#: Where a command line says that a word is a secret: the ``@``.
POSITIONS = (
    "mysql -p@ shop",
    "mysql --password=@ shop",
    "tool --db-password @ --verbose",
    "tool -token @",
    "env API_KEY=@ tool",
    "tool clientSecret=@",
    "tool --set=x --accessToken:@",
    "curl -u me:@ http://host/",
    "curl -H 'Authorization: Bearer @' http://host/",
    "curl -H 'X-Auth-Token: @' http://host/",
    "curl -d 'a=1&password=@&b=2' http://host/",
    'curl -d \'{"a": {"secret": "@"}}\' http://host/',
    'sh -c "curl -d \'{\\"passphrase\\": \\"@\\"}\' http://host/"',
    "psql postgresql://me:@@host:5432/db",
    "psql 'host=db password=@ user=me'",
    "sshpass -p @ ssh host",
    "redis-cli -a @ ping",
    "docker login -u me -p @ host",
    "openssl enc -k @ -in a",
    "openssl rsa -passin pass:@",
    "smbclient //host/share -U me%@",
    "app 'Server=db;Pwd=@;Encrypt=yes'",
    "sh -c 'sshpass -p \"@\" ssh host'",
    "sh -c 'exec tool --password @ && true'",
)

_WORD = string.ascii_letters + string.digits


def shapes(seed: int) -> dict[str, str]:
    """Secrets that tell by themselves, wherever they stand, by who issues them."""
    rng = random.Random(seed)  # noqa: S311 - nobody is protected by these

    def word(length: int, letters: str = _WORD) -> str:
        return "".join(rng.choices(letters, k=length))

    # Put together here, so that no scanner takes this file for a leak.
    return {
        "aws": "AKIA" + word(16, string.ascii_uppercase + string.digits),
        "github": "gh" + "p_" + word(36),
        "github-fine": "github" + "_pat_" + word(22) + "_" + word(20),
        "gitlab": "gl" + "pat-" + word(20),
        "slack": "xo" + "xb-" + f"{word(12, string.digits)}-{word(12, string.digits)}-{word(24)}",
        "stripe": "sk" + "_live_" + word(24),
        "openai": "s" + "k-proj-" + word(32),
        "google": "AI" + "za" + word(35),
        "hugging-face": "h" + "f_" + word(34),
        "npm": "np" + "m_" + word(36),
        "jwt": f"{'ey'}J{word(24)}.{'ey'}J{word(30)}.{word(43)}",
        "pypi": "py" + "pi-" + "AgEIcHlwaS5vcmc" + word(60),
        "vault": "hv" + "s." + word(24),
        "telegram": f"bot{word(9, string.digits[1:])}:" + "AA" + word(33),
    }


def command_lines(seed: int) -> list[tuple[str, tuple[str, ...]]]:
    """Secrets, each with the arguments of a command that carries it."""
    rng = random.Random(seed)  # noqa: S311 - nobody is protected by these
    lines: list[tuple[str, tuple[str, ...]]] = [
        (secret, ("tool", "--note", secret)) for secret in shapes(seed).values()
    ]
    for position in POSITIONS:
        secret = "".join(rng.choices(_WORD, k=20))
        lines.append((secret, tuple(shlex.split(position.replace("@", secret, 1)))))
    return lines


def commands_with_secrets(seed: int) -> list[ProcessEvent]:
    """An exec of each, by a process and an executable of its own."""
    return [
        ProcessEvent(
            "exec", 1000 + number, (1 + number) * 10**7, comm=args[0],
            exe=f"/opt/{number}/{args[0]}", args=args, ts_ns=time.time_ns(),
        )
        for number, (_, args) in enumerate(command_lines(seed))
    ]  # fmt: skip


def leaked(text: str, seed: int) -> list[str]:
    """Which of the secrets are in a text."""
    return [secret for secret, _ in command_lines(seed) if secret in text]


class QuotingRule:
    """Reports every exec, and quotes its arguments."""

    @hookimpl
    def linnix_handle(self, batch: Batch) -> list[Alert]:
        """One alert for each that has arguments."""
        return [
            Alert(
                "quoting", "high", f"quoted: {' '.join(record.args)}", "fork_storm",
                Subject(record.key, record.exe, record.comm, record.cgroup), ts_ns=record.ts_ns,
            )
            for record in batch
            if isinstance(record, ProcessEvent) and record.args
        ]  # fmt: skip
