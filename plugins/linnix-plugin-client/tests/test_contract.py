"""The plugin keeps the contract of its kind: click commands that cost nothing until invoked."""

import subprocess
import sys
from importlib.metadata import distribution

import click
import pytest

COMMANDS = {
    found.name: found
    for found in distribution("linnix-plugin-client").entry_points
    if found.group == "linnix.commands"
}


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_it_is_a_command_of_that_name_that_can_print_json(name):
    command = COMMANDS[name].load()
    assert isinstance(command, click.Command)
    assert command.name == name
    assert command.help
    options = {text for option in command.params for text in option.opts}
    assert {"--json", "--url"} <= options
    assert all(option.help for option in command.params if isinstance(option, click.Option))


def test_loading_the_commands_imports_nothing_that_costs_time():
    loaded = "; ".join(f"import {found.module}" for found in COMMANDS.values())
    heavy = "{'rich', 'httpx', 'psutil', 'asyncio'}"
    program = f"import sys; {loaded}; print(sorted({heavy} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (said.stdout, said.stderr) == ("[]\n", "")
