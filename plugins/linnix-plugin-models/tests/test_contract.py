"""The plugin keeps the contract of its kind: every entry point is a click command that helps."""

from importlib import metadata

import click
import pytest
from click.testing import CliRunner

POINTS = {
    point.name: point
    for point in metadata.distribution("linnix-plugin-models").entry_points
    if point.group == "linnix.commands"
}


def every_command(group, path=()):
    yield path, group
    for name, command in getattr(group, "commands", {}).items():
        yield from every_command(command, (*path, name))


def test_it_offers_these_commands():
    assert set(POINTS) == {"models", "sync", "training"}


@pytest.mark.parametrize("name", sorted(POINTS))
def test_every_command_says_what_it_does_and_what_every_option_means(name):
    group = POINTS[name].load()
    assert isinstance(group, click.Group)
    assert group.name == name
    for path, command in every_command(group):
        result = CliRunner().invoke(group, [*path, "--help"])
        assert result.exit_code == 0, path
        assert command.get_short_help_str(200), path
        for parameter in command.params:
            if isinstance(parameter, click.Option) and parameter.name not in ("requests", "tokens"):
                assert parameter.help, (path, parameter.name)


def test_every_command_that_prints_data_can_print_json():
    for name, point in POINTS.items():
        for path, command in every_command(point.load()):
            if not isinstance(command, click.Group):
                assert "as_json" in {p.name for p in command.params}, (name, path)


def test_the_issue_names_these_commands():
    models = set(POINTS["models"].load().commands)
    assert models == {
        "list", "info", "register", "pull", "convert", "deploy", "undeploy", "status", "test",
        "benchmark", "verify", "delete", "paths",
    }  # fmt: skip
    assert set(POINTS["sync"].load().commands) == {"list", "show", "run"}
    assert set(POINTS["training"].load().commands) == {"register-model"}
