"""``linnix notify list`` and ``linnix notify test``, on a plugin that is installed for the test."""

import json

import pytest
from click.testing import CliRunner

from linnix_core import LinnixError
from linnix_plugin_notify.commands import notify

PLUGIN = '''
from pathlib import Path
import attrs
from linnix_core import PluginUnavailable
from linnix_plugin_notify import NotNow, NotifyConfig, NotifyHandler

@attrs.frozen(kw_only=True)
class FileConfig(NotifyConfig):
    file: str = attrs.field(default="", metadata={"help": "where messages go"})

class FileSink:
    updates = idempotent = True
    def __init__(self, file):
        self.file = Path(file)
    def deliver(self, message, to, receipt, *, again):
        if to == "broken":
            raise NotNow("it is broken", hint="mend it")
        with self.file.open("a") as file:
            file.write(f"{to} {message.change} {message.title}\\n")
        return {}
    def close(self):
        pass

class FileHandler(NotifyHandler):
    """Tell a file."""
    Config = FileConfig
    @classmethod
    def open_sink(cls, config, logger):
        if not config.file:
            raise PluginUnavailable("it leads nowhere", hint="set file")
        return FileSink(config.file)
    @classmethod
    def default_target(cls, config):
        return "default"
'''


@pytest.fixture
def config(linnix_distribution, tmp_path):
    """Write a configuration with two components of the plugin."""
    linnix_distribution(
        "linnix-plugin-tofile",
        entry_points={"linnix.handlers": {"tofile": "tofile_plugin:FileHandler"}},
        modules={"tofile_plugin.py": PLUGIN},
    )

    def write(routes=""):
        file = tmp_path / "linnix.toml"
        file.write_text(
            f'[handlers.tofile]\nfile = "{tmp_path}/out"\n{routes}\n'
            f'[handlers.night]\nplugin = "tofile"\nenabled = false\n'
        )
        return str(file)

    return write


def run(*arguments):
    return CliRunner().invoke(notify, arguments, catch_exceptions=False)


ROUTES = """
[[handlers.tofile.routes]]
name = "quiet"
tell = false
cgroups = ["/user.slice/*"]
[[handlers.tofile.routes]]
name = "urgent"
to = "oncall"
min_severity = "high"
classes = ["oom_risk"]
labels = { pod = "pay*" }
per_hour = 5
"""


def test_list_shows_who_is_told_of_what(config):
    said = run("list", "-c", config(ROUTES))
    assert said.output.splitlines() == [
        "COMPONENT  ROUTE   TO        PER HOUR  INCIDENTS",
        "tofile     quiet   (nobody)  30        cgroup /user.slice/*",
        "tofile     urgent  oncall    5         high or worse, class oom_risk, pod pay*",
    ]
    rows = json.loads(run("list", "--json", "-c", config()).output)
    assert rows == [
        {"component": "tofile", "plugin": "tofile", "route": "all", "to": "default",
         "matches": "medium or worse", "per_hour": 30},
    ]  # fmt: skip


def test_test_sends_one_marked_message_to_every_place(config, tmp_path):
    said = run("test", "-c", config(ROUTES))
    assert (said.output, said.exit_code) == ("tofile oncall: sent\n", 0)
    (line,) = (tmp_path / "out").read_text().splitlines()
    assert line.startswith("oncall test TEST from Linnix on ")


def test_test_says_what_went_wrong(config):
    broken = '[[handlers.tofile.routes]]\nname = "x"\nto = "broken"\n'
    said = run("test", "tofile", "-c", config(broken))
    assert (said.output, said.exit_code) == ("tofile broken: FAILED: it is broken (mend it)\n", 1)
    (result,) = json.loads(run("test", "--json", "-c", config(broken)).output)
    assert result["error"] == "it is broken (mend it)"


def test_one_that_cannot_be_opened_keeps_no_other_from_being_tested(config):
    with open(file := config(), "a") as out:
        out.write('[handlers.aside]\nplugin = "tofile"\n')
    said = run("test", "-c", file)
    assert said.exit_code == 1
    assert said.output.splitlines() == [
        "tofile default: sent",
        "aside: FAILED: it leads nowhere (set file)",
    ]


def test_who_is_not_there_cannot_be_tested(config):
    with pytest.raises(LinnixError, match="no handler called 'night' notifies"):
        run("test", "night", "-c", config())


def test_nobody_is_told_by_an_empty_configuration(tmp_path):
    file = tmp_path / "linnix.toml"
    file.write_text("")
    assert "Nobody is told" in run("list", "-c", str(file)).output
    with pytest.raises(LinnixError, match="nobody is told"):
        run("test", "-c", str(file))
