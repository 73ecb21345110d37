"""The command line: what it prints, what it ends with, and that nothing breaks it.

Architecture, section 9. All through real processes. Exit codes: 0 ok, 1 failed while
running, 2 usage or configuration, 3 a required component failed.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest

from linnix_core.__about__ import __version__

PLUGINS = '''
import attrs
import click

from linnix_core import Health, PluginUnavailable, RecordsLost, hookimpl


@attrs.frozen
class NotesConfig:
    ARG = "path"

    path: str = attrs.field(default="notes.txt", metadata={"help": "where to write"})
    loud: bool = attrs.field()

    @loud.default
    def _loud(self):
        return False


class Notes:
    """Write a note for each batch.

    And more that a list does not show.
    """

    Config = NotesConfig

    def __init__(self, config, context):
        pass

    @hookimpl
    def linnix_handle(self, batch):
        pass

    @hookimpl
    def linnix_flush(self):
        pass


class Quiet:
    """Collect nothing until the end."""

    def __init__(self, config, context):
        pass

    @hookimpl
    def linnix_collect(self, stop):
        stop.wait()

    @hookimpl
    def linnix_health(self):
        return Health(limits=("short lives are missed",))


class Ends(Quiet):
    """Collect nothing and be done."""

    @hookimpl
    def linnix_collect(self, stop):
        pass


class NeedsRoot(Quiet):
    """Collect nothing, and not here."""

    @hookimpl
    def linnix_start(self):
        raise PluginUnavailable("needs CAP_BPF", hint="run it as root")


class BreaksLater(Quiet):
    """Collect for a moment."""

    @hookimpl
    def linnix_collect(self, stop):
        raise PluginUnavailable("the device went away")


class NoHooks:
    """Do nothing that was asked for."""


@click.command()
@click.option("--times", default=1, help="How often.")
def greet(times):
    """Say hello."""
    click.echo("hello " * times)


@click.command()
def crash():
    """Fail in a way that nobody foresaw."""
    raise ValueError("unforeseen")


def not_a_command():
    pass
'''

BROKEN = "raise RuntimeError('the plugin is broken')"
WHY_BROKEN = "linnix-plugin-broken 1.0 cannot be imported: RuntimeError: the plugin is broken"


@pytest.fixture
def site(tmp_path, linnix_distribution) -> str:
    """Folders with a good plugin, a broken one, and one for another core."""
    good = linnix_distribution(
        "linnix-plugin-good",
        entry_points={
            "linnix.handlers": {"notes": "linnix_good:Notes", "no-hooks": "linnix_good:NoHooks"},
            "linnix.collectors": {
                "quiet": "linnix_good:Quiet",
                "ends": "linnix_good:Ends",
                "needs-root": "linnix_good:NeedsRoot",
                "breaks-later": "linnix_good:BreaksLater",
            },
            "linnix.commands": {
                "crash": "linnix_good:crash",
                "greet": "linnix_good:greet",
                "no-command": "linnix_good:not_a_command",
            },
        },
        modules={"linnix_good.py": PLUGINS},
        summary="Good things",
    )
    broken = linnix_distribution(
        "linnix-plugin-broken",
        entry_points={
            "linnix.handlers": {"broken": "linnix_broken:Handler"},
            "linnix.commands": {"wreck": "linnix_broken:command"},
        },
        modules={"linnix_broken.py": BROKEN},
        summary="Broken things",
    )
    other = linnix_distribution(
        "linnix-plugin-other",
        entry_points={"linnix.handlers": {"other": "linnix_other:Handler"}},
        requires=["linnix-core>=7"],
    )
    return os.pathsep.join(map(str, (good, broken, other)))


@pytest.fixture
def environment(tmp_path) -> Callable[[str], dict[str, str]]:
    def make(folders: str) -> dict[str, str]:
        allowed = ("good", "broken", "other", "evil")
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path / "home"),
            "PYTHONPATH": folders,
            "LINNIX_PLUGINS": ",".join(f"linnix-plugin-{name}" for name in allowed),
            "COLUMNS": "100",
        }

    return make


@pytest.fixture
def linnix(tmp_path, site, environment):
    """``linnix("plugins", "list")`` in an empty folder, with these plugins and no others."""
    here = tmp_path / "here"
    here.mkdir()

    def run(*arguments: str, folders: str = site) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "linnix_core", *arguments],
            env=environment(folders),
            cwd=here,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )

    run.here = here
    return run


def row(done: subprocess.CompletedProcess[str], *cells: str) -> str:
    """The line of a table that begins with these cells."""
    pattern = r"\s+".join(map(re.escape, cells))
    (found,) = (line for line in done.stdout.splitlines() if re.match(rf"{pattern}(\s|$)", line))
    return found


def of_the_test(listed: Sequence[dict]) -> list[dict]:
    return [item for item in listed if item["code"] != "blocked"]


# --- help ---------------------------------------------------------------------------------

COMMANDS = [
    "", "run", "plugins", "plugins list", "plugins show", "config", "config init", "config check",
    "config show", "doctor", "greet",
]  # fmt: skip


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_without_anything_on_stderr(linnix, command, flag):
    done = linnix(*command.split(), flag)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: linnix {command}".strip())
    assert re.search(r"\n\n  [A-Z][^.]*\.", done.stdout), "says what it does"


def test_the_first_help_names_all_commands_and_where_those_of_plugins_come_from(linnix):
    shown = linnix("--help").stdout
    own, of_plugins = shown.split("Commands of plugins:")
    for command in ("run", "plugins", "config", "doctor"):
        assert re.search(rf"\n  {command}  +[A-Z]", own)
    assert re.search(r"\n  greet  +from linnix-plugin-good 1.0", of_plugins)
    assert re.search(r"\n  wreck  +from linnix-plugin-broken 1.0", of_plugins)
    assert "Exit codes: 0 ok" in shown


@pytest.mark.parametrize("command", ["plugins", "config"])
def test_a_group_lists_its_commands_with_a_line_each(linnix, command):
    shown = linnix(command, "--help").stdout
    assert len(re.findall(r"(?m)^  (list|show|init|check)  +[A-Z]", shown)) >= 2


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_the_version_is_one_line(linnix, flag):
    done = linnix(flag)
    assert (done.returncode, done.stdout) == (0, f"linnix {__version__}\n")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("pluginns list", "No such command 'pluginns'. Did you mean 'plugins'?"),
        ("gret", "No such command 'gret'. Did you mean 'greet'?"),
        ("zzz", "No such command 'zzz'."),
        ("plugins lst", "No such command 'lst'. Did you mean 'list'?"),
        ("config chek", "No such command 'chek'. Did you mean 'check'?"),
        ("run --colector x", "No such option '--colector'. Did you mean '--collector'?"),
        ("run --duration soon", "expected a duration such as '10s'"),
        ("run --collector", "requires an argument"),
        ("run quiet", "unexpected extra argument"),
        ("plugins show", "Missing argument 'NAME'"),
        ("--debg", "No such option '--debg'. Did you mean '--debug'?"),
    ],
)
def test_a_slip_of_the_fingers_is_met_with_what_was_meant(linnix, typed, said):
    done = linnix(*typed.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_command_the_help_is_shown(linnix):
    done = linnix()
    assert done.returncode == 2
    assert "Usage: linnix" in done.stdout + done.stderr


# --- plugins ------------------------------------------------------------------------------


def test_the_list_says_what_each_plugin_is_and_what_stands_against_it(linnix):
    done = linnix("plugins", "list")
    assert (done.returncode, done.stderr) == (0, "")
    cells = ["handlers", "notes", "linnix-plugin-good 1.0", "available", "Good things"]
    assert re.split(r"\s{2,}", row(done, "handlers", "notes")) == cells
    assert row(done, "handlers", "other").endswith(
        f"unavailable  linnix-plugin-other 1.0 needs linnix-core >=7; this is {__version__}"
    )
    # Metadata cannot know that it is broken, and nothing is imported to find out.
    assert "available" in row(done, "handlers", "broken")
    assert "commands" in row(done, "commands", "greet")


def test_the_list_is_there_for_programs_too(linnix):
    done = linnix("plugins", "list", "--json")
    listed = of_the_test(json.loads(done.stdout))
    assert [(item["kind"], item["name"]) for item in listed] == [
        ("collectors", "breaks-later"),
        ("collectors", "ends"),
        ("collectors", "needs-root"),
        ("collectors", "quiet"),
        ("handlers", "broken"),
        ("handlers", "no-hooks"),
        ("handlers", "notes"),
        ("handlers", "other"),
        ("commands", "crash"),
        ("commands", "greet"),
        ("commands", "no-command"),
        ("commands", "wreck"),
    ]
    assert next(item for item in listed if item["name"] == "other") == {
        "kind": "handlers",
        "name": "other",
        "distribution": "linnix-plugin-other",
        "version": "1.0",
        "summary": "",
        "requires_core": ">=7",
        "state": "unavailable",
        "code": "incompatible",
        "reason": f"linnix-plugin-other 1.0 needs linnix-core >=7; this is {__version__}",
    }


def test_one_plugin_is_shown_with_hooks_argument_and_keys(linnix):
    done = linnix("plugins", "show", "notes")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "handlers.notes: Write a note for each batch.",
        "  from      linnix-plugin-good 1.0",
        "  state     available",
        "  hooks     linnix_flush, linnix_handle",
        "  argument  --handler notes:PATH",
        "",
        "  KEY   TYPE  DEFAULT",
        "  path  str   notes.txt  where to write",
        "  loud  bool  -",
    ]


def test_one_plugin_is_shown_to_programs(linnix):
    (shown,) = json.loads(linnix("plugins", "show", "handlers.notes", "--json").stdout)
    assert shown["hooks"] == ["linnix_flush", "linnix_handle"]
    assert shown["argument"] == "path"
    assert shown["description"] == "Write a note for each batch."
    assert shown["keys"][0] == {
        "name": "path",
        "type": "str",
        "default": "notes.txt",
        "required": False,
        "help": "where to write",
    }


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("broken", f"failed: linnix_broken:Handler of {WHY_BROKEN}"),
        ("no-hooks", "failed: NoHooks implements no hook of handlers"),
        ("other", "unavailable: linnix-plugin-other 1.0 needs linnix-core >=7"),
    ],
)
def test_what_is_wrong_with_a_plugin_is_shown_as_its_state(linnix, name, state):
    done = linnix("plugins", "show", name)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"  state     {state}" in done.stdout


@pytest.mark.parametrize(
    ("name", "said", "hint"),
    [
        ("note", "called 'note'; did you mean 'notes'?", ""),
        ("kafka", "is a handler called 'kafka'", "pip install linnix-plugin-kafka"),
        ("collectors.qiet", "a collector called 'qiet'; did you mean 'quiet'?", ""),
    ],
)  # fmt: skip
def test_an_unknown_plugin_is_met_with_the_closest_or_what_to_install(linnix, name, said, hint):
    done = linnix("plugins", "show", name)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert hint in done.stderr


def test_without_plugins_the_list_says_how_to_begin(tmp_path):
    # Nothing less than another environment has none, so the scan is told to find nothing.
    code = """if True:
        from linnix_core import catalog, cli
        catalog.Catalog.scan = classmethod(lambda cls: cls())
        cli.main(["plugins", "list"])
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "No plugin is installed. Begin with: pip install linnix\n"


# --- commands of plugins ------------------------------------------------------------------


def test_a_command_of_a_plugin_runs_like_any_other(linnix):
    done = linnix("greet", "--times", "2")
    assert (done.returncode, done.stdout) == (0, "hello hello \n")
    assert linnix("greet", "--times", "x").returncode == 2


def test_a_broken_command_says_why_and_leaves_everything_else_working(linnix):
    done = linnix("wreck")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"linnix: linnix_broken:command of {WHY_BROKEN}\n"
    assert "wreck" in linnix("--help").stdout
    assert linnix("plugins", "list").returncode == 0
    assert linnix("greet").returncode == 0


def test_what_is_no_command_says_so(linnix):
    done = linnix("no-command")
    assert (done.returncode, done.stderr) == (1, "linnix: linnix no-command is no click command\n")


def test_a_plugin_cannot_take_the_place_of_a_command_of_the_core(linnix, linnix_distribution):
    folder = linnix_distribution(
        "linnix-plugin-evil",
        entry_points={"linnix.commands": {"doctor": "linnix_evil:command"}},
        modules={"linnix_evil.py": BROKEN},
    )
    assert "linnix-plugin-evil" not in linnix("--help", folders=str(folder)).stdout
    assert "what is missing" in linnix("doctor", "--help", folders=str(folder)).stdout


# --- doctor -------------------------------------------------------------------------------


def test_doctor_tells_what_works_what_does_not_and_what_will_not_be_seen(linnix):
    (linnix.here / "linnix.toml").write_text(
        "[collectors.quiet]\n[collectors.needs-root]\n[handlers.notes]\n[handlers.broken]\n"
    )
    done = linnix("doctor")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"linnix {__version__}, Python 3.")
    assert "configuration: linnix.toml\n" in done.stdout
    assert "works" in row(done, "collectors.quiet")
    assert "unavailable  needs CAP_BPF (run it as root)" in row(done, "collectors.needs-root")
    assert "available" in row(done, "handlers.notes")
    assert "the plugin is broken" in row(done, "handlers.broken")
    assert "What will not be seen:\n  collectors.quiet: short lives are missed\n" in done.stdout


def test_doctor_tells_programs_the_same(linnix):
    (linnix.here / "linnix.toml").write_text("[collectors.quiet]\n[collectors.needs-root]\n")
    done = linnix("doctor", "--json")
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert (found["works"], found["problems"], found["configuration"]) == (True, [], "linnix.toml")
    assert (found["version"], found["uid"]) == (__version__, os.geteuid())
    components = {item["component"]: item for item in found["components"]}
    assert components["collectors.quiet"]["limits"] == ["short lives are missed"]
    assert components["collectors.needs-root"] == {
        "component": "collectors.needs-root",
        "state": "unavailable",
        "code": "capability",
        "reason": "needs CAP_BPF",
        "hint": "run it as root",
        "limits": [],
    }


def test_doctor_needs_the_client_to_ask_a_running_agent(linnix):
    done = linnix("doctor", "--url", "http://127.0.0.1:1")
    assert done.returncode == 1
    assert "linnix-plugin-client" in done.stderr
    assert "Traceback" not in done.stderr


def test_doctor_ends_with_one_when_a_run_could_not_work(linnix):
    done = linnix("doctor")
    assert done.returncode == 1
    # This run is kept from seeing what is installed beside the core, if anything is.
    hint = "LINNIX_PLUGINS" if find_spec("linnix_plugin_ebpf") else "pip install linnix-plugin-ebpf"
    assert hint in row(done, "collectors.ebpf", "missing")
    assert json.loads(linnix("doctor", "--json").stdout)["works"] is False
    (linnix.here / "linnix.toml").write_text("[collectors.quiet]\n[handlers.notes]\nlod = true\n")
    done = linnix("doctor")
    assert done.returncode == 1
    assert "  handlers.notes.lod: unknown key (did you mean 'loud'?)\n" in done.stdout


# --- run, and its exit codes --------------------------------------------------------------

RUN = ("run", "--no-plugins")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((*RUN, "--collector", "ends"), 0, ""),
        ((*RUN, "--collector", "quiet", "--duration", "100ms"), 0, ""),
        ((*RUN, "--collector", "ends", "--handler", "notes:x"), 0, ""),
        (RUN, 1, "no collector is"),
        ((*RUN, "--collector", "ends", "--set", "agent.batch_size=0"), 2, "agent.batch_size"),
        ((*RUN, "--collector", "ends:5"), 2, "takes no argument after the colon"),
        ((*RUN, "--collector", "ends", "--config", "missing"), 2, "there is no such file"),
        ((*RUN, "--collector", "needs-root"), 3, "needs CAP_BPF\n  run it as root\n"),
        ((*RUN, "--collector", "breaks-later"), 3, "the device went away"),
        ((*RUN, "--collector", "ends", "--handler", "broken"), 3, "the plugin is broken"),
        ((*RUN, "--collector", "ends", "--handler", "kafka"), 3, "pip install linnix-plugin-kafka"),
    ],
)
def test_a_run_ends_with_the_code_of_its_reason(linnix, arguments, code, said):
    # Where root cannot give up everything, it says so: not what this is about.
    done = linnix(*arguments, "--set", "agent.drop_privileges=false")
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    if code == 0:
        assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_interrupted_ends_in_order(site, environment, tmp_path, number):
    with subprocess.Popen(
        [sys.executable, "-m", "linnix_core", "-vv", *RUN, "--collector", "quiet"],
        env=environment(site),
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        try:
            # Its signals are handled before anything starts.
            said = iter(running.stderr.readline, "")
            assert any("starting collectors.quiet" in line for line in said)
            running.send_signal(number)
            rest = "".join(said)
            assert running.wait(60) == 0, rest
        finally:
            running.kill()
    assert re.search(rf"stopping after [0-9.]+ s: {number.name}", rest)


def test_a_hangup_has_files_read_again_and_ends_nothing(site, environment, tmp_path):
    with subprocess.Popen(
        [sys.executable, "-m", "linnix_core", "-vv", *RUN, "--collector", "quiet"],
        env=environment(site),
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as running:
        try:
            said = iter(running.stderr.readline, "")
            assert any("starting collectors.quiet" in line for line in said)
            running.send_signal(signal.SIGHUP)
            assert any("reading files again" in line for line in said)
            running.send_signal(signal.SIGINT)
            rest = "".join(said)
            assert running.wait(60) == 0, rest
        finally:
            running.kill()


def test_a_run_ends_with_its_terminal(site, environment, tmp_path):
    ours, theirs = os.openpty()
    with subprocess.Popen(
        ["setsid", "--ctty", sys.executable, "-m", "linnix_core", "-vv", *RUN,
         "--collector", "quiet"],
        env=environment(site),
        cwd=tmp_path,
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:  # fmt: skip
        try:
            os.close(theirs)
            lines = iter(running.stderr.readline, "")
            assert any("starting collectors.quiet" in line for line in lines)
            os.close(ours)
            rest = "".join(lines)
            assert running.wait(60) == 0, rest
        finally:
            running.kill()
    assert "the terminal is gone" in rest


# --- errors -------------------------------------------------------------------------------


def test_an_error_is_a_sentence_and_debug_shows_where_it_comes_from(linnix):
    done = linnix("wreck")
    assert "Traceback" not in done.stderr
    done = linnix("--debug", "wreck")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "linnix_broken.py" in done.stderr


def test_a_bug_of_a_command_is_a_sentence_too(linnix):
    done = linnix("crash")
    assert done.returncode == 1
    assert done.stderr == "linnix: ValueError: unforeseen\n  this is a bug; --debug shows where\n"
    assert "Traceback" in linnix("--debug", "crash").stderr


def test_verbose_says_what_happens(linnix):
    done = linnix("-v", *RUN, "--collector", "ends")
    assert "linnix: info: stopping after" in done.stderr
    done = linnix("-vv", *RUN, "--collector", "ends")
    assert "linnix: debug: starting collectors.ends" in done.stderr


EVIL = "evil\x1b[2J\x1b]0;owned\x07\u202etxt\u200b\x9b31m"


@pytest.fixture
def evil(linnix_distribution) -> str:
    """A distribution whose every text is hostile."""
    folder = linnix_distribution(
        "linnix-plugin-evil",
        version="1\x1b[31m",
        entry_points={
            "linnix.handlers": {"evil": "linnix_evil:Evil", EVIL: "linnix_evil:Evil"},
            "linnix.collectors": {"quiet": "linnix_evil:Quiet"},
            "linnix.commands": {EVIL: "linnix_evil:Evil", "wreck": f"linnix_evil:{EVIL}"},
        },
        modules={
            "linnix_evil.py": f"""
            import attrs
            from linnix_core import Health, PluginUnavailable, hookimpl

            EVIL = {EVIL!r}

            @attrs.frozen
            class Config:
                key: str = attrs.field(default=EVIL, metadata={{"help": EVIL + "\\n[agent]"}})

            class Evil:
                __doc__ = EVIL
                Config = Config

                def __init__(self, config, context):
                    raise PluginUnavailable(EVIL, hint=EVIL)

                @hookimpl
                def linnix_handle(self, batch):
                    pass

            class Quiet:
                def __init__(self, config, context):
                    pass

                @hookimpl
                def linnix_collect(self):
                    pass

                @hookimpl
                def linnix_health(self):
                    return Health("degraded", EVIL, (EVIL,))
            """
        },
        summary=EVIL,
    )
    return str(folder)


@pytest.mark.parametrize(
    "command",
    [
        "--help", "plugins list", "plugins show evil", "plugins show handlers.evil", "doctor",
        "config init", "config show", "config check", "wreck", f"{EVIL}", f"plugins show {EVIL}",
        f"run --collector quiet --handler {EVIL}", f"config check --config {EVIL}",
        f"config check --set handlers.evil.{EVIL}=1",
        f"config check --set handlers.evil.key=[\"{EVIL}\"]", "-vv run --collector quiet",
        "run --collector quiet --handler evil", "plugins list --json", "doctor --json",
    ],
)  # fmt: skip
def test_hostile_metadata_cannot_break_the_terminal(linnix, evil, command):
    (linnix.here / "linnix.toml").write_text("[collectors.quiet]\n[handlers.evil]\n")
    arguments = [*command.split(), *(["--force"] if command == "config init" else [])]
    done = linnix(*arguments, folders=evil)
    written = (linnix.here / "linnix.toml").read_text()
    for shown in (done.stdout, done.stderr, written):
        steering = {c for c in shown if unicodedata.category(c) in {"Cc", "Cf", "Cs"}}
        assert steering <= {"\n"}, shown
    assert done.stdout or done.stderr


def test_hostile_help_cannot_write_into_the_configuration(linnix, evil):
    assert linnix("config", "init", folders=evil).returncode == 0
    written = (linnix.here / "linnix.toml").read_text()
    assert [line for line in written.splitlines() if line and line[0] != "#"] == ["[agent]"]


# --- pipes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", ["plugins list", "plugins list --json", "--help", "doctor", "config show"]
)
def test_a_reader_that_has_gone_away_is_no_reason_for_words(site, environment, tmp_path, command):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "linnix_core", *command.split()],
            env=environment(site),
            cwd=tmp_path,
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        os.close(writing)
    assert done.stderr == ""
    assert done.returncode == 1


def test_a_pipe_to_head_shows_its_line(site, environment, tmp_path):
    command = f"{sys.executable} -m linnix_core plugins list --json | head -n 1"
    done = subprocess.run(
        ["sh", "-c", command], env=environment(site), cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("[\n", "")


def test_a_full_disk_is_a_sentence(site, environment, tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "linnix_core", "plugins", "list"],
            env=environment(site),
            cwd=tmp_path,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1
    assert done.stderr == "linnix: No space left on device\n"


def test_a_table_for_a_pipe_is_not_cut(linnix):
    assert row(linnix("plugins", "list"), "handlers", "other").endswith(f"this is {__version__}")
