"""The plugin offers its command the way the core looks for it."""

import subprocess
import sys
from importlib import metadata


def test_the_command_is_an_entry_point():
    found = metadata.entry_points(group="linnix.commands", name="insight")
    (entry,) = found
    assert entry.load().name == "insight"


def test_importing_the_command_costs_nothing_of_what_only_some_need():
    code = (
        "import sys, linnix_plugin_insight.commands;"
        "heavy = {'numpy', 'httpx', 'pytest', 'linnix_core.plugins'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
