"""Who may import whom, and that all plugins are shaped alike.

Architecture, sections 2 and 10: the core never imports a plugin; a plugin imports the
core's public names and what its own metadata declares.
"""

from __future__ import annotations

import ast
import graphlib
import itertools
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

import linnix_core
import linnix_core.commands

#: What plugins may take from where; commands are imported when they are invoked only.
PUBLIC = {
    "linnix_core": linnix_core.__all__,
    "linnix_core.commands": linnix_core.commands.__all__,
}

ROOT = Path(__file__).parents[1]
PLUGINS = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))
WITH_CODE = [path for path in PLUGINS if path.name != "linnix"]
by_name = pytest.mark.parametrize("plugin", WITH_CODE, ids=lambda path: path.name)
by_every_name = pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)


def project(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))


def module_of(plugin: Path) -> str:
    return plugin.name.replace("-", "_")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imports(file: Path) -> Iterator[tuple[str, str | None]]:
    """Each module that a file imports, with the name that it takes from there."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from ((node.module or "", alias.name) for alias in node.names)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            first = node.args[0] if node.args else None
            if called in ("import_module", "importorskip") and isinstance(first, ast.Constant):
                yield str(first.value), None


def foreign(folder: Path) -> set[str]:
    """The top-level modules that a folder imports and Python does not have."""
    found = {module.split(".")[0] for file in folder.rglob("*.py") for module, _ in imports(file)}
    return found - sys.stdlib_module_names


def modules_of(requirements: list[str]) -> set[str]:
    """What can be imported thanks to these requirements."""
    wanted = {normal(Requirement(line).name) for line in requirements}
    found = {plugin.name.replace("-", "_") for plugin in WITH_CODE if plugin.name in wanted}
    if "llama-cpp-python" in wanted:  # compiled for minutes, so it is not everywhere
        found.add("llama_cpp")
    for module, distributions in metadata.packages_distributions().items():
        if wanted & set(map(normal, distributions)):
            found.add(module)
    return found


# --- who imports whom ---------------------------------------------------------------------


def test_the_core_never_imports_a_plugin():
    named = [
        f"{file.relative_to(ROOT)}: {module}"
        for file in (ROOT / "linnix_core").rglob("*.py")
        for module, _ in imports(file)
        if module.startswith("linnix_plugin")
    ]
    assert named == []


def test_the_core_imports_what_it_declares():
    declared = project(ROOT)["project"]
    testing = declared["optional-dependencies"]["testing"]
    allowed = modules_of([*declared["dependencies"], *testing])
    assert foreign(ROOT / "linnix_core") - {"linnix_core"} <= allowed


def test_the_core_imports_pytest_only_for_testing():
    users = {
        file.relative_to(ROOT / "linnix_core").parts[0]
        for file in (ROOT / "linnix_core").rglob("*.py")
        for module, _ in imports(file)
        if module.split(".")[0] in ("pytest", "_pytest", "hypothesis")
    }
    assert users == {"testing"}


@by_name
def test_a_plugin_imports_nothing_of_the_core_but_its_public_names(plugin):
    private = [
        f"{file.relative_to(plugin)}: {module} {name or ''}"
        for file in (plugin / "src").rglob("*.py")
        for module, name in imports(file)
        if module.split(".")[0] == "linnix_core" and name not in PUBLIC.get(module, ())
    ]
    assert private == []


@by_name
def test_the_tests_of_a_plugin_use_the_core_as_its_authors_would(plugin):
    private = [
        f"{file.relative_to(plugin)}: {module} {name or ''}"
        for file in (plugin / "tests").rglob("*.py")
        for module, name in imports(file)
        if module.split(".")[0] == "linnix_core"
        and not module.startswith("linnix_core.testing")
        and (module, name) != ("linnix_core", "testing")
        and name not in PUBLIC.get(module, ())
    ]
    assert private == []


#: What comes with the system and never from PyPI, so that no metadata can declare it.
OF_THE_SYSTEM = {"linnix-plugin-bcc": {"bcc"}}


@by_name
def test_a_plugin_imports_what_it_declares(plugin):
    declared = project(plugin)["project"]
    extras = declared.get("optional-dependencies", {}).values()
    allowed = modules_of([*declared["dependencies"], *itertools.chain(*extras)])
    allowed |= OF_THE_SYSTEM.get(plugin.name, set())
    assert foreign(plugin / "src") - allowed - {module_of(plugin), "linnix_core"} == set()


@by_name
def test_the_tests_of_a_plugin_import_what_it_declares_for_them(plugin):
    described = project(plugin)
    needed = [
        line
        for line in described.get("dependency-groups", {}).get("test", [])
        if isinstance(line, str)
    ]
    extras = described["project"].get("optional-dependencies", {}).values()
    declared = [*described["project"]["dependencies"], *itertools.chain(*extras)]
    allowed = modules_of([*declared, *needed, "pytest"])
    helpers = {file.stem for file in (plugin / "tests").glob("*.py")}
    helpers |= {folder.name for folder in plugin.iterdir() if folder.is_dir()}
    own = {module_of(plugin), "linnix_core"} | helpers
    assert foreign(plugin / "tests") - allowed - own == set()


def test_no_plugin_is_a_namespace_of_another():
    modules = [path.name for plugin in WITH_CODE for path in (plugin / "src").iterdir()]
    assert sorted(modules) == sorted({module_of(plugin) for plugin in WITH_CODE})


# --- shapes -------------------------------------------------------------------------------


def test_there_are_plugins_to_look_at():
    assert {"linnix", "linnix-plugin-psutil", "linnix-plugin-rules"} <= {p.name for p in PLUGINS}
    assert [path.name for path in (ROOT / "plugins").iterdir() if path not in PLUGINS] == []


@by_name
def test_every_plugin_has_the_same_files(plugin):
    module = f"src/{module_of(plugin)}"
    for file in (
        "pyproject.toml",
        "README.md",
        f"{module}/__init__.py",
        f"{module}/__about__.py",
        f"{module}/py.typed",
    ):
        assert (plugin / file).is_file(), file
    of_the_core = any(
        group.startswith("linnix.") for group in project(plugin)["project"]["entry-points"]
    )
    assert (plugin / "tests" / "test_contract.py").is_file() == of_the_core


def test_the_default_set_is_a_distribution_without_code():
    files = {path.name for path in (ROOT / "plugins" / "linnix").iterdir()}
    assert files == {"pyproject.toml", "README.md"}


def test_no_tests_folder_is_a_package():
    # With pytest's importlib mode the root's tests would run again in place of the plugin's.
    folders = [ROOT / "tests", *ROOT.glob("plugins/*/tests"), *ROOT.glob("examples/**/tests")]
    assert [file for folder in folders for file in folder.rglob("__init__.py")] == []


@by_name
def test_a_plugin_is_named_alike_everywhere(plugin):
    described = project(plugin)
    assert described["project"]["name"] == plugin.name
    assert plugin.name.startswith("linnix-plugin-")
    about = f"src/{module_of(plugin)}/__about__.py"
    assert described["tool"]["hatch"]["version"]["path"] == about
    packages = described["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert packages == [f"src/{module_of(plugin)}"]
    assert plugin.name in (plugin / "README.md").read_text(encoding="utf-8")


@by_name
def test_the_version_of_a_plugin_can_be_read_without_running_anything(plugin):
    tree = ast.parse((plugin / "src" / module_of(plugin) / "__about__.py").read_text())
    (assigned,) = (node for node in tree.body if isinstance(node, ast.Assign))
    assert ast.unparse(assigned.targets[0]) == "__version__"
    assert re.fullmatch(r"\d+\.\d+\.\d+", ast.literal_eval(assigned.value))


@by_name
def test_a_plugin_offers_something_of_its_own(plugin):
    described = project(plugin)["project"]
    offered = [
        (group, name, value)
        for group, values in described["entry-points"].items()
        for name, value in values.items()
    ]
    assert offered
    for group, name, value in offered:
        owner, _, kind = group.partition(".")
        if owner == "linnix":
            assert kind in ("collectors", "handlers", "reasoners", "deployers", "commands")
        else:  # a plugin for a plugin
            assert owner in modules_of(described["dependencies"])
        assert re.fullmatch(r"[a-z][a-z0-9-]*", name)
        assert re.fullmatch(rf"{module_of(plugin)}[\w.]*:\w+", value)


def requirements_in(described: dict[str, Any]) -> list[str]:
    lines = list(described["project"].get("dependencies", ()))
    for more in described["project"].get("optional-dependencies", {}).values():
        lines += more
    for more in described.get("dependency-groups", {}).values():
        lines += [line for line in more if isinstance(line, str)]
    return lines + described["build-system"]["requires"]


@by_every_name
def test_every_plugin_declares_the_core_that_it_is_for(plugin):
    assert "linnix-core>=0.1,<0.2" in project(plugin)["project"]["dependencies"]


@by_every_name
def test_what_is_needed_from_this_repository_is_taken_from_it(plugin):
    # uv builds nothing of a workspace as long as one of its members is missing here.
    described = project(plugin)
    needed = {normal(Requirement(line).name) for line in requirements_in(described)}
    here = {"linnix-core", *(path.name for path in PLUGINS)}
    assert needed & here == set(described["tool"]["uv"]["sources"])


@pytest.mark.parametrize("folder", [ROOT, *PLUGINS], ids=lambda path: path.name)
def test_nothing_is_pinned(folder):
    described = project(folder)
    assert [
        line for line in requirements_in(described) if "==" in str(Requirement(line).specifier)
    ] == []
    assert described["build-system"]["build-backend"] == "hatchling.build"
    assert described["project"]["requires-python"] == ">=3.11"


@pytest.mark.parametrize("folder", [ROOT, *PLUGINS], ids=lambda path: path.name)
def test_what_is_named_on_pypi_is_what_is_meant(folder):
    # There, bcc is a lattice library; the tools of that name come with the system.
    assert "bcc" not in {
        normal(Requirement(line).name) for line in requirements_in(project(folder))
    }


# --- requirements files -------------------------------------------------------------------


def lines_of(file: str) -> list[str]:
    """The lines of a requirements file, with those of the files that it includes."""
    found: list[str] = []
    for line in (ROOT / file).read_text(encoding="utf-8").splitlines():
        text = line.partition("#")[0].strip()
        if text.startswith("-r "):
            found += lines_of(text.removeprefix("-r ").strip())
        elif text:
            found.append(text)
    return found


def editable(lines: list[str]) -> list[str]:
    return [line.removeprefix("-e ").strip() for line in lines if line.startswith("-e ")]


def default_set() -> set[str]:
    names = {
        Requirement(line).name
        for line in project(ROOT / "plugins" / "linnix")["project"]["dependencies"]
    }
    return {f"plugins/{name}" for name in names - {"linnix-core"}}


def test_requirements_are_the_core_and_the_default_set_and_nothing_else():
    lines = lines_of("requirements.txt")
    assert set(editable(lines)) == {".", "plugins/linnix"} | default_set()
    assert len(editable(lines)) == len(lines)


def test_the_core_is_installed_before_what_needs_it_and_the_default_set_last():
    listed = editable(lines_of("requirements.txt"))
    assert (listed[0], listed[-1]) == (".", "plugins/linnix")


def test_requirements_for_development_are_all_of_the_repository():
    listed = editable(lines_of("requirements-dev.txt"))
    assert sorted(listed) == sorted([".", *(f"plugins/{plugin.name}" for plugin in PLUGINS)])


def test_requirements_for_development_hold_what_the_tests_of_the_plugins_need():
    listed = {
        normal(Requirement(line).name)
        for line in lines_of("requirements-dev.txt")
        if line[0] != "-"
    }
    here = {"linnix-core", *(plugin.name for plugin in PLUGINS)}
    for plugin in PLUGINS:
        for line in project(plugin).get("dependency-groups", {}).get("test", []):
            assert {normal(Requirement(line).name)} <= listed | here, plugin.name


def test_the_default_set_is_in_this_repository():
    for path in default_set():
        assert (ROOT / path / "pyproject.toml").is_file(), path


# --- the core by itself -------------------------------------------------------------------


def core_imports() -> dict[str, set[str]]:
    """Which module of the core imports which, wherever in the file; not for types alone."""
    found: dict[str, set[str]] = {}
    for file in (ROOT / "linnix_core").rglob("*.py"):
        parts = file.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = set()
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for_types = {
            inner
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            for inner in ast.walk(node)
        }
        found[name] |= {
            node.module
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            and node not in for_types
            and (node.module or "").startswith("linnix_core")
        }
    return found


def test_the_modules_of_the_core_go_round_in_no_circle():
    graph = core_imports()
    assert "linnix_core.records" in graph["linnix_core.agent"]
    order = graphlib.TopologicalSorter(graph)
    order.prepare()
