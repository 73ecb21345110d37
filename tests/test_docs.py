"""The documentation says what the code does: every hook, key and field, and its examples run."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import attrs
import click
import pytest

from linnix_core import codec, hookspecs
from linnix_core.cli.group import cli
from linnix_core.config import RESERVED, AgentSettings
from linnix_core.testing.records import reason_request

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [*DOCS.glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]

HOOKS = {
    name: list(inspect.signature(spec).parameters)[1:]
    for classes in hookspecs.SPECS.values()
    for spec_class in classes
    for name, spec in vars(spec_class).items()
    if name.startswith("linnix_")
}


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("hook", sorted(HOOKS))
def test_every_hook_has_a_heading_with_its_exact_arguments(hook):
    text = (DOCS / "hooks.md").read_text(encoding="utf-8")
    assert f"### {hook}({', '.join(HOOKS[hook])})\n" in text


@pytest.mark.parametrize("hook", sorted(HOOKS))
def test_every_hook_is_named_by_a_test(hook):
    tests = [*ROOT.glob("tests/*.py"), *ROOT.glob("plugins/*/tests/*.py")]
    assert any(hook in path.read_text() for path in tests if path != Path(__file__))


def test_every_field_of_every_record_is_described_under_its_type():
    text = (DOCS / "records.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE))
    common = re.search(r"## Keys of every record\n(.*?)^## ", text, re.DOTALL | re.MULTILINE)
    assert common is not None
    for name, cls in {**codec._FLAT, **codec._NESTED}.items():
        for field in attrs.fields(cls):
            key = f"`{field.name.rstrip('_')}`"
            assert key in sections[name] or key in common[1], f"{key} of {name}"


def test_the_published_schema_is_the_one_of_the_code():
    published = json.loads((DOCS / "records.schema.json").read_text(encoding="utf-8"))
    assert published == codec.json_schema()


def test_every_key_of_the_core_is_described():
    text = (DOCS / "configuration.md").read_text(encoding="utf-8")
    for key in (*(field.name for field in attrs.fields(AgentSettings)), *RESERVED):
        assert f"| `{key}` |" in text, key


def test_every_option_of_run_is_described():
    text = (DOCS / "command-line.md").read_text(encoding="utf-8")
    context = click.Context(cli)
    run = cli.get_command(context, "run")
    assert run is not None
    for parameter in run.params:
        assert f"`{parameter.opts[-1]}" in text, parameter.opts


def test_the_example_configuration_is_without_mistakes(tmp_path):
    file = tmp_path / "linnix.toml"
    file.write_text(blocks("configuration.md", "toml")[0])
    done = subprocess.run(
        [sys.executable, "-m", "linnix_core", "config", "check", "--config", str(file)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def _python_blocks() -> list[str]:
    return blocks("writing-a-plugin.md", "python")


def test_the_plugin_of_the_tutorial_keeps_its_contract_and_is_heard(tmp_path):
    """As a person would: two files and the tests beside them, in a pytest of their own."""
    folder = tmp_path / "linnix-plugin-rootshell"
    package = folder / "linnix_plugin_rootshell-0.1.0.dist-info"
    package.mkdir(parents=True)
    described = tomllib.loads(blocks("writing-a-plugin.md", "toml")[0])["project"]
    requires = "".join(f"Requires-Dist: {line}\n" for line in described["dependencies"])
    (package / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {described['name']}\nVersion: {described['version']}\n"
        f"Summary: {described['description']}\n{requires}"
    )
    (package / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
            for group, points in described["entry-points"].items()
        )
    )
    plugin, contract, heard, *_ = _python_blocks()
    (folder / "linnix_plugin_rootshell.py").write_text(plugin)
    (folder / "test_contract.py").write_text(contract)
    (folder / "test_heard.py").write_text(heard)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "."],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d{2,} passed", done.stdout), done.stdout


def test_the_other_examples_of_the_tutorial_are_python_that_the_core_accepts():
    reasoner, model, deployer = _python_blocks()[3:6]
    names: dict[str, object] = {}
    from linnix_core.plugins import verify

    for source, name in (reasoner, "FirstFact"), (model, "Oracle"):
        exec(compile(source, name, "exec"), names)
        assert verify(names[name], "reasoners") == {"linnix_reason": ("request",)}
    answer = names["Oracle"]().linnix_reason(reason_request("fork_storm"))
    assert (answer.class_, answer.confidence, answer.process) == ("normal", 50, None)
    exec(compile(deployer, "deployer", "exec"), names)
    assert callable(names["serve"])


def test_the_messages_shown_are_those_of_the_code():
    text = (DOCS / "messages.md").read_text(encoding="utf-8")
    shown = re.findall(r"<!-- (\S+) -->\n```\w+\n(.*?)\n```\n", text, re.DOTALL)
    made = {str(file.relative_to(ROOT)) for file in ROOT.glob("plugins/*/tests/golden/*.*")}
    told = {file for file in made if "-otlp/" not in file}
    assert {file for file, _ in shown} == told
    for file, message in shown:
        assert (ROOT / file).read_text(encoding="utf-8").rstrip("\n") == message, file
