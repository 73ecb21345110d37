"""The configuration: where it is found, what overrides what, and every mistake at once.

Architecture, section 8. What single keys do is in ``test_settings.py``.
"""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linnix_core import ConfigError, Duration, Secret, Size
from linnix_core import config as module
from linnix_core.config import (
    AgentSettings,
    argument_value,
    find_file,
    read,
    structure,
    unstructure,
)
from linnix_core.errors import Problem

SECRET = "hunter2-hunter2"

#: A plugin with a key of every type that people write.
FAKE = '''
from pathlib import Path
from typing import Literal

import attrs
from linnix_core import Duration, Secret, Size, hookimpl


@attrs.frozen
class Server:
    host: str
    port: int = attrs.field(default=80, validator=attrs.validators.ge(1))


@attrs.frozen
class FakeConfig:
    ARG = "path"

    path: Path = Path("out.txt")
    count: int = attrs.field(default=3, metadata={"help": "how many\\n[agent] = # of them"})
    ratio: float = 0.5
    every: Duration = Duration(90.0)
    size: Size = Size(65536)
    mode: Literal["plain", "live"] = "plain"
    quoted: str = 'say  "#1"\\nand more'
    names: tuple[str, ...] = ("a", "b # c")
    labels: dict[str, str] = attrs.field(factory=dict)
    server: Server | None = None
    api_key: Secret | None = None
    later: int = attrs.field()

    @later.default
    def _later(self):
        return self.count


class Fake:
    """Take everything and do nothing."""

    Config = FakeConfig

    def __init__(self, config, context):
        pass

    @hookimpl
    def linnix_handle(self, batch):
        pass


class Quiet:
    """Collect nothing."""

    def __init__(self, config, context):
        pass

    @hookimpl
    def linnix_collect(self, stop):
        stop.wait()
'''


@pytest.fixture
def nowhere(tmp_path, monkeypatch) -> Path:
    """A place of one's own: no file, no home, no variable of Linnix."""
    for name in [name for name in os.environ if name.startswith("LINNIX")]:
        monkeypatch.delenv(name)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(module, "SYSTEM_FILE", tmp_path / "etc" / "linnix.toml")
    return here


@pytest.fixture
def linnix(nowhere, linnix_distribution, tmp_path):
    """The real command line, with the plugin ``fake`` and no other that may be used."""
    folder = linnix_distribution(
        "linnix-plugin-fake",
        entry_points={
            "linnix.handlers": {"fake": "linnix_fake:Fake"},
            "linnix.collectors": {"quiet": "linnix_fake:Quiet"},
        },
        modules={"linnix_fake.py": FAKE},
        summary="enabled = false",
    )

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "linnix_core", *arguments],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(tmp_path / "home"),
                "PYTHONPATH": str(folder),
                "LINNIX_PLUGINS": "linnix-plugin-fake",
                **environment,
            },
            capture_output=True,
            text=True,
        )

    return run


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def problems_of(file: Path, *overrides: str, **environ: str) -> list[Problem]:
    with pytest.raises(ConfigError) as error:
        read(file, overrides=overrides, environ=environ)
    return list(error.value.problems)


# --- which file ---------------------------------------------------------------------------


def test_the_nearest_file_is_read(nowhere, tmp_path, monkeypatch):
    assert find_file() is None
    etc = write(tmp_path / "etc" / "linnix.toml")
    assert find_file() == etc
    user = write(tmp_path / "xdg" / "linnix" / "linnix.toml")
    assert find_file() == user
    here = write(nowhere / "linnix.toml")
    assert find_file().resolve() == here
    variable = write(tmp_path / "variable.toml")
    monkeypatch.setenv("LINNIX_CONFIG", str(variable))
    assert find_file() == variable
    named = write(tmp_path / "named.toml")
    assert find_file(str(named)) == named


def test_the_file_of_the_host_is_in_etc():
    assert Path("/etc/linnix/linnix.toml") == module.SYSTEM_FILE


def test_without_xdg_the_users_file_is_in_the_home_folder(nowhere, tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CONFIG_HOME")
    user = write(tmp_path / "home" / ".config" / "linnix" / "linnix.toml")
    assert find_file() == user
    assert find_file("~/.config/linnix/linnix.toml") == user


@pytest.mark.parametrize("named", ["missing.toml", "."])
def test_a_file_that_is_named_must_be_there(nowhere, monkeypatch, named):
    write(nowhere / "linnix.toml")
    with pytest.raises(ConfigError, match="there is no such file"):
        find_file(named)
    monkeypatch.setenv("LINNIX_CONFIG", named)
    with pytest.raises(ConfigError, match="there is no such file"):
        find_file()


def test_a_file_here_that_belongs_to_somebody_else_is_refused_unless_it_is_named(nowhere):
    if os.geteuid() != 0:
        # Only root can give a file away; where CI has root, this must not be left out.
        assert os.environ.get("CI") != "true", "run this as root in CI"
        pytest.skip("only root can give a file to another user")
    here = write(nowhere / "linnix.toml")
    os.chown(here, 12345, 12345)
    with pytest.raises(ConfigError, match="belongs to uid 12345") as error:
        find_file()
    assert "--config linnix.toml" in str(error.value)
    assert find_file("linnix.toml") == Path("linnix.toml")


def test_the_order_of_files_holds_on_the_real_command_line(linnix, nowhere, tmp_path):
    def source(*arguments: str, **environment: str) -> str:
        done = linnix("config", "show", "--json", *arguments, **environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["source"]

    user = write(tmp_path / "xdg" / "linnix" / "linnix.toml")
    folder = {"XDG_CONFIG_HOME": str(tmp_path / "xdg")}
    assert source(**folder) == str(user)
    write(nowhere / "linnix.toml")
    assert source(**folder) == "linnix.toml"
    variable = write(tmp_path / "variable.toml")
    assert source(**folder, LINNIX_CONFIG=str(variable)) == str(variable)
    named = write(tmp_path / "named.toml")
    assert source("--config", str(named), **folder, LINNIX_CONFIG=str(variable)) == str(named)


# --- which value --------------------------------------------------------------------------


def test_a_variable_overrides_the_file_and_set_overrides_both(tmp_path):
    file = write(
        tmp_path / "l.toml", "[agent]\nbatch_size = 1\nlinger_ms = 1\nstop_timeout_s = 1\n"
    )
    made = read(
        file,
        overrides=["agent.stop_timeout_s=3"],
        environ={"LINNIX__AGENT__LINGER_MS": "2", "LINNIX__AGENT__STOP_TIMEOUT_S": "2"},
    ).agent
    assert (made.batch_size, made.linger_ms, made.stop_timeout_s) == (1, 2, 3.0)


def test_the_last_of_several_sets_counts():
    assert (
        read(overrides=["agent.linger_ms=5", "agent.linger_ms=6"], environ={}).agent.linger_ms == 6
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("out.jsonl", "out.jsonl"),
        ("/var/log/x", "/var/log/x"),
        ('"4"', "4"),
        ("4", 4),
        ("2.5", 2.5),
        ("true", True),
        ("[1, 2]", [1, 2]),
        ('{ env = "KEY" }', {"env": "KEY"}),
        ("True", "True"),
        ("", ""),
        ("a = b", "a = b"),
        ("two words", "two words"),
        ("3\nx = 4", "3\nx = 4"),
        ("#fff", "#fff"),
    ],
)
def test_a_value_from_outside_is_read_as_toml_and_otherwise_as_text(text, value):
    (by_set,) = read(overrides=[f"handlers.x.key={text}"], environ={}).components
    (by_variable,) = read(environ={"LINNIX__HANDLERS__X__KEY": text}).components
    assert by_set.options["key"] == by_variable.options["key"] == value
    assert type(by_set.options["key"]) is type(value)


def test_names_of_components_get_their_dashes_back_and_keys_keep_theirs():
    (made,) = read(environ={"LINNIX__REASONERS__LLAMA_CPP__MAX_TOKENS": "5"}).components
    assert (made.path, made.options) == ("reasoners.llama-cpp", {"max_tokens": 5})


def test_tables_in_tables_can_be_reached():
    (made,) = read(environ={"LINNIX__HANDLERS__X__SERVER__HOST": "h"}).components
    assert made.options == {"server": {"host": "h"}}


def test_an_alias_is_the_same_table_wherever_it_is_written(tmp_path):
    file = write(tmp_path / "l.toml", '[reasoners."llama.cpp"]\nmodel = "a"\n')
    (made,) = read(
        file,
        overrides=["reasoners.llama-cpp.seed=1"],
        environ={"LINNIX__REASONERS__LLAMACPP__MODEL": "b"},
    ).components
    assert (made.path, made.options) == ("reasoners.llama-cpp", {"model": "b", "seed": 1})


def test_two_tables_of_one_component_are_a_mistake(tmp_path):
    file = write(tmp_path / "l.toml", "[reasoners.llamacpp]\n[reasoners.llama-cpp]\n")
    assert problems_of(file) == [
        Problem("reasoners.llamacpp", "there is a table [reasoners.llama-cpp] too")
    ]


def test_other_variables_are_none_of_our_business():
    assert read(environ={"LINNIX_CONFIG": "x", "LINNIX_PLUGINS": "", "PATH": "/"}).components == ()


@pytest.mark.parametrize(
    ("override", "path", "reason"),
    [
        ("agent.linger_ms", "--set agent.linger_ms", "expected KEY.KEY=VALUE"),
        ("=5", "--set =5", "expected KEY.KEY=VALUE"),
        ("agent..x=5", "--set agent..x=5", "expected KEY.KEY=VALUE"),
        ("agent=5", "--set agent", "names no table and key"),
        ("handlers.x=5", "handlers.x", "must be a table"),
        ("agent.linger_ms.x=5", "--set agent.linger_ms.x", "linger_ms is a value, not a table"),
    ],
)
def test_a_set_that_leads_nowhere_says_so(tmp_path, override, path, reason):
    file = write(tmp_path / "l.toml", "[agent]\nlinger_ms = 3\n")
    (problem,) = problems_of(file, override)
    assert (problem.path, problem.reason) == (path, reason)


# --- mistakes -----------------------------------------------------------------------------


@attrs.frozen
class Server:
    host: str
    port: int = attrs.field(default=80, validator=attrs.validators.ge(1))


def _ordered(instance: object, attribute: object, value: int) -> None:
    if value < instance.low:
        raise ValueError(f"high must not be less than low, got {value}")


@attrs.frozen
class Keys:
    needed: str = attrs.field(metadata={"help": "what for"})
    whole: int = 1
    number: float = 1.0
    flag: bool = False
    text: str = ""
    path: Path | None = None
    choice: Literal["plain", "live"] = "plain"
    every: Duration = Duration(1.0)  # noqa: RUF009 - a float
    size: Size = Size(1)  # noqa: RUF009 - an int
    secret: Secret | None = None
    names: tuple[str, ...] = ()
    pair: tuple[int, str] = (1, "a")
    numbers: list[int] = attrs.field(factory=list)
    limits: dict[str, int] = attrs.field(factory=dict)
    labels: Mapping[str, str] = attrs.field(factory=dict)
    either: int | str = 1
    server: Server | None = None
    servers: Sequence[Server] = ()
    low: int = attrs.field(default=1, validator=attrs.validators.ge(0))
    high: int = attrs.field(default=9, validator=_ordered)
    doubled: int = attrs.field(default=1, converter=lambda value: value * 2)
    inner: int = attrs.field(default=0, init=False)


def mistakes(**table: object) -> list[str]:
    problems: list[Problem] = []
    made = structure(Keys, {"needed": "x", **table}, "handlers.x", problems)
    assert (made is None) == bool(problems)
    return [str(problem).removeprefix("handlers.x.") for problem in problems]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"whole": "3"}, "whole: expected a whole number, got '3' (write 3 without quotes)"),
        ({"whole": "many"}, "whole: expected a whole number, got 'many'"),
        ({"whole": True}, "whole: expected a whole number, got true"),
        ({"whole": 3.0}, "whole: expected a whole number, got 3.0"),
        ({"number": "1.5"}, "number: expected a number, got '1.5' (write 1.5 without quotes)"),
        ({"number": True}, "number: expected a number, got true"),
        ({"number": float("nan")}, "number: expected a finite number, got nan"),
        ({"number": float("inf")}, "number: expected a finite number, got inf"),
        ({"flag": 1}, "flag: expected true or false, got 1"),
        ({"flag": "true"}, "flag: expected true or false, got 'true' (write true without quotes)"),
        ({"text": 3}, 'text: expected a text, got 3 (write "3")'),
        ({"text": False}, 'text: expected a text, got false (write "false")'),
        ({"text": ["a"]}, "text: expected a text, got a list"),
        ({"path": 3}, "path: expected a path, got 3"),
        ({"path": ""}, "path: expected a path, got ''"),
        (
            {"choice": "life"},
            "choice: expected one of plain, live, got 'life' (did you mean 'live'?)",
        ),
        ({"choice": {"a": 1}}, "choice: expected one of plain, live, got a table"),
        (
            {"every": "5 parsecs"},
            "every: expected a duration such as '10s' or '250ms', got '5 parsecs'",
        ),
        ({"size": "5 MiX"}, "size: expected a size such as '64KiB' or '100MB', got '5 MiX'"),
        ({"names": "abc"}, "names: expected a list, got 'abc' (write ['abc'])"),
        ({"names": ["a", 3]}, 'names[1]: expected a text, got 3 (write "3")'),
        ({"pair": [1]}, "pair: expected 2 values, got 1"),
        ({"pair": ["a", "b"]}, "pair[0]: expected a whole number, got 'a'"),
        ({"numbers": {"a": 1}}, "numbers: expected a list, got a table"),
        ({"limits": {"a": 1, "b": "x"}}, "limits.b: expected a whole number, got 'x'"),
        ({"limits": [1]}, "limits: expected a table, got a list (write { key = value })"),
        ({"labels": 3}, "labels: expected a table, got 3 (write { key = value })"),
        ({"either": 1.5}, "either: expected a whole number, got 1.5"),
        ({"server": "h"}, "server: expected a table, got 'h' (write { key = value })"),
        ({"server": {"hots": "h", "host": "h"}}, "server.hots: unknown key (did you mean 'host'?)"),
        ({"server": {}}, "server.host: required key is missing"),
        ({"server": {"host": "h", "port": 0}}, "server.port: must be >= 1: 0"),
        (
            {"servers": [{"host": "h"}, {"host": 3}]},
            'servers[1].host: expected a text, got 3 (write "3")',
        ),
        ({"servers": {"host": "h"}}, "servers: expected a list, got a table"),
        ({"low": -1}, "low: must be >= 0: -1"),
        ({"low": 5, "high": 4}, "high: must not be less than low, got 4"),
        ({"txet": "x"}, "txet: unknown key (did you mean 'text'?)"),
        ({"inner": 3}, "inner: unknown key"),
        ({"colour": "green"}, "colour: unknown key"),
    ],
    ids=str,
)  # fmt: skip
def test_a_mistake_has_its_path_its_reason_and_what_to_write(table, said):
    assert mistakes(**table) == [said]


def test_a_key_that_must_be_there_says_what_it_is_for():
    problems: list[Problem] = []
    assert structure(Keys, {}, "handlers.x", problems) is None
    assert problems == [Problem("handlers.x.needed", "required key is missing", "what for")]


def test_no_mistake_hides_another():
    found = mistakes(
        whole="3",
        low=-1,
        choice="life",
        names=["a", 1, 2],
        server={"port": 0, "hots": "h"},
        colour="green",
    )
    assert [line.split(":")[0] for line in found] == [
        "colour", "whole", "choice", "names[1]", "names[2]", "server.hots", "server.host",
        "server.port", "low",
    ]  # fmt: skip


def test_what_is_right_is_taken_as_it_is_meant():
    problems: list[Problem] = []
    made = structure(
        Keys,
        {
            "needed": "x", "number": 3, "path": "~/x", "every": "1m30s", "size": "64KiB",
            "names": ["a"], "pair": [2, "b"], "numbers": [1], "limits": {"a": 1},
            "labels": {"b": "c"}, "either": "x", "server": {"host": "h"},
            "servers": [{"host": "i", "port": 1}], "doubled": 4,
        },
        "handlers.x",
        problems,
    )  # fmt: skip
    assert problems == []
    assert (made.number, type(made.number)) == (3.0, float)
    assert made.path == Path.home() / "x"
    assert (made.every, made.size) == (90.0, 65536)
    assert (made.names, made.pair, made.numbers) == (("a",), (2, "b"), [1])
    assert (made.limits, made.labels, made.either) == ({"a": 1}, {"b": "c"}, "x")
    assert (made.server, made.servers) == (Server("h"), (Server("i", 1),))
    assert made.doubled == 8


toml_values = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=300)
@given(table=st.dictionaries(st.sampled_from([f.name for f in attrs.fields(Keys)]), toml_values))
def test_whatever_is_written_is_either_taken_or_a_problem_with_a_path(table):
    problems: list[Problem] = []
    made = structure(Keys, table, "handlers.x", problems)
    assert (made is None) == bool(problems)
    for problem in problems:
        assert problem.path.startswith("handlers.x.")
        assert problem.reason


@pytest.mark.parametrize(
    ("toml", "path", "reason", "suggestion"),
    [
        ("[agnet]", "agnet", "unknown table", "did you mean 'agent'?"),
        ("[collector.psutil]", "collector", "unknown table", "did you mean 'collectors'?"),
        ("agent = 3", "agent", "must be a table", "write [agent]"),
        ("handlers = 'jsonl'", "handlers", "must be a table", "write [handlers]"),
        ("[handlers]\njsonl = 'x'", "handlers.jsonl", "must be a table", "write [handlers.jsonl]"),
        ("[agent]\nlinger = 3", "agent.linger", "unknown key", "did you mean 'linger_ms'?"),
        ("[agent]\nbatch_size = 0", "agent.batch_size", "must be more than 0, got 0", None),
        ("[agent]\ndata_dir = 'x'", "agent.data_dir", "must be an absolute path, got 'x'", None),
        ("[handlers.x]\nqueue = 0", "handlers.x.queue", "must be more than 0, got 0", None),
        (
            "[collectors.x]\ninterval = 0",
            "collectors.x.interval",
            "must be more than 0, got 0.0",
            None,
        ),
        (
            "[handlers.x]\ninterval = 1",
            "handlers.x.interval",
            "only collectors have an interval",
            None,
        ),
        ("[reasoners.x]\nqueue = 1", "reasoners.x.queue", "reasoners have no queue", None),
        (
            "[deployers.x]\noverflow = 'block'",
            "deployers.x.overflow",
            "deployers have no queue",
            None,
        ),
        ("[handlers.x]\nenabled = 1", "handlers.x.enabled", "expected true or false, got 1", None),
        ("[handlers.x]\nplugin = 1", "handlers.x.plugin", "expected a text, got 1", 'write "1"'),
        (
            "[handlers.x]\noverflow = 'drop'",
            "handlers.x.overflow",
            "expected one of drop_oldest, drop_newest, block, got 'drop'",
            None,
        ),
        (
            "[handlers.Bad_Name]",
            "handlers.Bad_Name",
            "a name starts with a small letter and goes on with those, digits or dashes",
            None,
        ),
    ],
)  # fmt: skip
def test_mistakes_outside_of_plugins_keys(tmp_path, toml, path, reason, suggestion):
    assert problems_of(write(tmp_path / "l.toml", toml)) == [Problem(path, reason, suggestion)]


def test_what_is_no_toml_says_where(tmp_path):
    (problem,) = problems_of(write(tmp_path / "l.toml", "[agent]\nbatch_size = = 3\n"))
    assert problem.path == "TOML"
    assert "line 2" in problem.reason
    (tmp_path / "l.toml").write_bytes(b"\xff\xfe")
    assert problems_of(tmp_path / "l.toml")[0].path == "TOML"


def test_a_file_that_cannot_be_read_says_why(tmp_path):
    assert problems_of(tmp_path)[0].reason == "Is a directory"


# --- mistakes, on the real command line ---------------------------------------------------

WRONG = """\
[agent]
batch_size = "many"
linger_ms = 0
stric = true

[handlers.fake]
queue = "3"
count = true

[handlers.also-fake]
plugin = "fake"
mode = "life"
every = "soon"
server = { port = 0 }
api_key = { env = "NOT_SET" }

[handlers.fke]

[collectors.quiet]
speed = 3

[colectors.quiet]
"""


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line.removeprefix("linnix: linnix.toml: ") for line in done.stderr.splitlines()]


@pytest.mark.parametrize("command", ["config check", "config show", "run --collector quiet"])
def test_every_mistake_is_reported_at_once_and_the_exit_code_is_two(linnix, nowhere, command):
    write(nowhere / "linnix.toml", WRONG)
    done = linnix(*command.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert said(done) == [
        "agent.stric: unknown key (did you mean 'strict'?)",
        "agent.batch_size: expected a whole number, got 'many'",
        "agent.linger_ms: must be more than 0, got 0",
        "handlers.fake.queue: expected a whole number, got '3' (write 3 without quotes)",
        "colectors: unknown table (did you mean 'collectors'?)",
        "collectors.quiet.speed: quiet has no configuration",
        "handlers.fake.count: expected a whole number, got true",
        "handlers.also-fake.every: expected a duration such as '10s' or '250ms', got 'soon'",
        "handlers.also-fake.mode: expected one of plain, live, got 'life' (did you mean 'live'?)",
        "handlers.also-fake.server.host: required key is missing",
        "handlers.also-fake.server.port: must be >= 1: 0",
        "handlers.also-fake.api_key: the environment variable NOT_SET is not set",
        "handlers.fke: no installed plugin is a handler called 'fke'; did you mean 'fake'?",
    ]


def test_the_mistakes_are_there_for_programs_too(linnix, nowhere):
    write(nowhere / "linnix.toml", "[agent]\nstric = true\n")
    done = linnix("config", "check", "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout) == {
        "source": "linnix.toml",
        "problems": [
            {
                "path": "agent.stric",
                "reason": "unknown key",
                "suggestion": "did you mean 'strict'?",
            }
        ],
    }
    done = linnix("config", "check", "--json", "--config", "missing.toml")
    assert done.returncode == 2
    assert json.loads(done.stdout)["problems"][0]["reason"] == "there is no such file"


@pytest.mark.parametrize(
    "command", [["run", "--collector", "quiet"], ["config", "show"], ["doctor"]]
)
def test_no_command_starts_anything_with_a_mistake(linnix, nowhere, command):
    write(nowhere / "linnix.toml", "[handlers.fake]\ncount = true\nratio = false\n")
    done = linnix(*command)
    assert done.returncode == (1 if command == ["doctor"] else 2)
    shown = done.stdout + done.stderr
    assert "handlers.fake.count: expected a whole number, got true" in shown
    assert "handlers.fake.ratio: expected a number, got false" in shown
    assert "linnix.toml" in shown
    assert "Traceback" not in shown


def test_a_configuration_without_mistakes_says_so(linnix, nowhere):
    write(nowhere / "linnix.toml", "[handlers.fake]\ncount = 4\n")
    done = linnix("config", "check")
    assert (done.returncode, done.stderr) == (0, "")
    assert "linnix.toml: no mistakes" in done.stdout
    assert json.loads(linnix("config", "check", "--json").stdout)["problems"] == []


# --- secrets ------------------------------------------------------------------------------


@pytest.fixture
def secrets_everywhere(nowhere, tmp_path) -> dict[str, str]:
    """One secret, given in every way that there is."""
    file = write(tmp_path / "secret file", SECRET + "\n")
    write(
        nowhere / "linnix.toml",
        f"""
        [handlers.by-variable]
        plugin = "fake"
        api_key = {{ env = "FAKE_KEY" }}
        [handlers.by-file]
        plugin = "fake"
        api_key = {{ file = "{file}" }}
        [handlers.plain]
        plugin = "fake"
        api_key = "{SECRET}"
        [handlers.outside]
        plugin = "fake"
        """,
    )
    return {"FAKE_KEY": SECRET, "LINNIX__HANDLERS__OUTSIDE__API_KEY": SECRET}


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_config_show_tells_where_a_secret_is_and_never_what_it_is(linnix, secrets_everywhere, form):
    done = linnix("config", "show", *form, **secrets_everywhere)
    assert done.returncode == 0, done.stderr
    assert SECRET not in done.stdout + done.stderr
    shown = (json.loads if form else tomllib.loads)(done.stdout)["handlers"]
    assert shown["by-variable"]["api_key"] == {"env": "FAKE_KEY"}
    assert shown["by-file"]["api_key"]["file"].endswith("secret file")
    assert shown["plain"]["api_key"] == shown["outside"]["api_key"] == "********"


@pytest.mark.parametrize("flags", [[], ["--debug"], ["-vv"]])
def test_no_error_shows_a_secret(linnix, secrets_everywhere, flags):
    done = linnix(
        *flags, "config", "check",
        "--set", "handlers.plain.count=wrong",
        "--set", f"handlers.by-file.names={{ password = '{SECRET}' }}",
        "--set", f"handlers.by-variable.api_key=['{SECRET}']",
        **secrets_everywhere,
    )  # fmt: skip
    assert done.returncode in (1, 2)
    assert "handlers.by-variable.api_key" in done.stderr
    assert SECRET not in done.stdout + done.stderr


def test_a_configuration_with_a_secret_can_be_logged():
    problems: list[Problem] = []
    made = structure(Keys, {"needed": "x", "secret": SECRET}, "handlers.x", problems)
    assert SECRET not in repr(made) + str(made) + repr(unstructure(made)) + repr(attrs.asdict(made))
    assert made.secret.reveal() == SECRET


# --- config init --------------------------------------------------------------------------

_KEY = re.compile(r"^# ([a-z_]+ = \S.*)$", re.MULTILINE)
_TABLE = re.compile(r"^# (\[[a-z.-]+\])$", re.MULTILINE)


def test_what_init_writes_is_without_mistakes(linnix, nowhere):
    done = linnix("config", "init")
    assert done.returncode == 0, done.stderr
    assert "linnix.toml written" in done.stdout
    assert linnix("config", "check").returncode == 0


def test_what_init_writes_is_without_mistakes_when_every_comment_is_taken_away(linnix, nowhere):
    linnix("config", "init")
    file = nowhere / "linnix.toml"
    bare = _TABLE.sub(r"\1", _KEY.sub(r"\1", file.read_text()))
    file.write_text(bare)
    done = linnix("config", "check")
    assert (done.returncode, done.stderr) == (0, "")
    # It says what would hold anyway.
    by_itself = json.loads(linnix("config", "show", "--json").stdout)
    file.unlink()
    assert json.loads(linnix("config", "show", "--json").stdout)["agent"] == by_itself["agent"]
    shown = by_itself["handlers"]["fake"]
    assert shown["quoted"] == 'say  "#1"\nand more'
    assert shown["names"] == ["a", "b # c"]
    assert (shown["every"], shown["size"], shown["overflow"]) == (90.0, 65536, "drop_oldest")


def test_init_shows_every_key_with_its_default_and_what_it_is_for(linnix, nowhere):
    linnix("config", "init")
    text = (nowhere / "linnix.toml").read_text()
    for name in (*(field.name for field in attrs.fields(AgentSettings)), "count", "api_key"):
        assert re.search(rf"(?m)^# {name} =", text), name
    assert "# count = 3    # how many [agent] = # of them\n" in text
    assert "# fake: enabled = false\n# [handlers.fake]\n" in text


def test_init_writes_for_nobody_else_and_does_not_overwrite(linnix, nowhere):
    file = nowhere / "own.toml"
    linnix("config", "init", "-o", "own.toml")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.write_text("# mine")
    file.chmod(0o644)
    done = linnix("config", "init", "-o", "own.toml")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "linnix: own.toml exists\n  --force replaces it\n"
    assert file.read_text() == "# mine"
    assert linnix("config", "init", "--output", "own.toml", "--force").returncode == 0
    assert "[agent]" in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_init_follows_no_link(linnix, nowhere, force):
    target = write(nowhere / "target", "precious")
    (nowhere / "linnix.toml").symlink_to(target)
    done = linnix("config", "init", *force)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert target.read_text() == "precious"


def test_init_says_why_a_file_cannot_be_written(linnix):
    done = linnix("config", "init", "-o", "missing/linnix.toml")
    assert done.returncode == 1
    assert done.stderr.startswith("linnix: missing/linnix.toml cannot be written: No such file")


# --- config show --------------------------------------------------------------------------


def test_show_prints_what_is_in_effect_as_toml_that_says_the_same_again(linnix, nowhere):
    write(
        nowhere / "linnix.toml",
        "[handlers.fake]\ncount = 4\nqueue = 7\nlabels = { a = 'b' }\nserver = { host = 'h' }\n",
    )
    done = linnix("config", "show", "--set", "agent.linger_ms=9", LINNIX__HANDLERS__FAKE__RATIO="2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# from linnix.toml\n")
    shown = tomllib.loads(done.stdout)
    assert shown["agent"]["linger_ms"] == 9
    fake = shown["handlers"]["fake"]
    assert (fake["count"], fake["queue"], fake["ratio"], fake["mode"]) == (4, 7, 2.0, "plain")
    assert (fake["labels"], fake["server"]) == ({"a": "b"}, {"host": "h", "port": 80})
    assert (fake["enabled"], fake["required"], fake["overflow"]) == (True, False, "drop_oldest")
    assert "interval" not in fake
    again = read(write(nowhere / "again.toml", done.stdout), environ={})
    assert unstructure(again.agent) == shown["agent"]
    (made,) = (component for component in again.components if component.name == "fake")
    assert {**made.options, **unstructure(made.reserved)} == {**fake, "interval": 5.0}


def test_show_as_json_says_the_same(linnix, nowhere):
    write(nowhere / "linnix.toml", "[handlers.fake]\ncount = 4\n")
    by_toml = tomllib.loads(linnix("config", "show").stdout)
    assert json.loads(linnix("config", "show", "--json").stdout) == {
        "source": "linnix.toml",
        **by_toml,
    }


# --- arguments ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("text", "5", "5"),
        ("path", "5", "5"),
        ("whole", "5", 5),
        ("whole", "x", "x"),
        ("every", "5m", "5m"),
        ("flag", "true", True),
        ("choice", "live", "live"),
        ("numbers", "[1]", [1]),
    ],
)
def test_an_argument_is_the_text_unless_its_field_wants_more(field, text, value):
    assert argument_value(Keys, field, text) == value
