"""Looking costs little: help, version and the list of plugins import no plugin and hardly anything.

Architecture, section 9. Counted in modules, because seconds depend on the machine.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from linnix_core.catalog import Catalog

#: Modules that one look adds to those of a bare interpreter: as counted, and 15 % of room.
#: One that needs more has begun to import something: find out what, before raising it.
BUDGET = {"--version": 78, "--help": 98, "plugins list": 110, "plugins list --json": 110}

#: What commands need and looking does not.
HEAVY = {
    "asyncio", "attr", "attrs", "cattrs", "concurrent.futures", "decimal", "email", "http",
    "httpx", "importlib.metadata", "msgspec", "packaging", "pluggy", "psutil", "rich", "socket",
    "sqlite3", "ssl", "stevedore", "tomli_w", "tomllib", "unittest", "xml", "yaml", "zipfile",
}  # fmt: skip

LOOK = """
import sys
before = set(sys.modules)
from linnix_core.cli import main
try:
    main(sys.argv[1:])
except SystemExit as ended:
    assert not ended.code, ended.code
print(*sorted(set(sys.modules) - before), file=sys.stderr)
"""


def modules_after(command: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", LOOK, *command.split()], capture_output=True, text=True, check=True
    )
    assert done.stdout
    return set(done.stderr.split())


def modules_of_plugins() -> set[str]:
    return {record.value.partition(":")[0] for record in Catalog.scan()}


@pytest.mark.parametrize("command", BUDGET)
def test_looking_imports_no_plugin(command, linnix_distribution, monkeypatch):
    folder = linnix_distribution(
        entry_points={
            "linnix.handlers": {"looked-at": "linnix_looked_at:Handler"},
            "linnix.commands": {"look": "linnix_looked_at:command"},
        },
        modules={"linnix_looked_at.py": "raise RuntimeError('imported')"},
    )
    monkeypatch.setenv("PYTHONPATH", str(folder))
    assert "linnix_looked_at" in modules_of_plugins()
    assert not modules_of_plugins() & modules_after(command)


@pytest.mark.parametrize("command", BUDGET)
def test_looking_imports_none_of_the_heavy_libraries(command):
    found = modules_after(command)
    assert not {name for name in found if name in HEAVY or name.split(".")[0] in HEAVY}


@pytest.mark.parametrize("command", BUDGET)
def test_looking_stays_within_its_budget_of_modules(command):
    found = modules_after(command)
    assert len(found) <= BUDGET[command], " ".join(sorted(found))


@pytest.mark.parametrize("command", ["run", "config", "doctor", "plugins"])
def test_help_of_a_command_imports_no_plugin_either(command):
    assert not modules_of_plugins() & modules_after(f"{command} --help")


def test_importing_the_package_imports_none_of_its_modules():
    code = "import sys, linnix_core; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = set(done.stdout.split())
    assert {name for name in found if name.startswith("linnix_core")} == {
        "linnix_core",
        "linnix_core.__about__",
    }
    assert not found & HEAVY


def test_the_contract_needs_attrs_msgspec_and_pluggy_and_nothing_else_that_is_installed():
    code = (
        "import sys; before = set(sys.modules);"
        "import linnix_core.hookspecs, linnix_core.records, linnix_core.errors;"
        "print(*set(sys.modules) - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    installed = {name.split(".")[0] for name in done.stdout.split()} - sys.stdlib_module_names
    # msgspec takes typing_extensions where it is installed, and needs it not.
    assert installed - {"typing_extensions"} == {
        "linnix_core",
        "attrs",
        "attr",
        "msgspec",
        "pluggy",
    }
