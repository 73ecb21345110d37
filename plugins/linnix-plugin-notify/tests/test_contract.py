"""The plugin keeps the contract of its kind: a click command that costs nothing until invoked."""

import subprocess
import sys
from importlib.metadata import distribution

import click

COMMANDS = {
    found.name: found
    for found in distribution("linnix-plugin-notify").entry_points
    if found.group == "linnix.commands"
}


def test_it_is_a_group_of_commands_that_can_print_json():
    group = COMMANDS["notify"].load()
    assert isinstance(group, click.Group)
    assert group.name == "notify"
    assert sorted(group.commands) == ["list", "test"]
    for command in group.commands.values():
        assert command.help
        options = {text for option in command.params for text in option.opts}
        assert {"--json", "--config"} <= options


def test_loading_the_commands_imports_nothing_that_costs_time():
    loaded = "; ".join(f"import {found.module}" for found in COMMANDS.values())
    heavy = "{'rich', 'httpx', 'slack_sdk', 'apprise', 'asyncio'}"
    program = f"import sys; {loaded}; print(sorted({heavy} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (said.stdout, said.stderr) == ("[]\n", "")
