"""The group of all commands, each imported when it is invoked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from linnix_core.__about__ import __version__

if TYPE_CHECKING:
    from linnix_core.catalog import Catalog

__all__ = ["cli"]

#: The commands of the core: module and the line that ``--help`` shows, so that showing it
#: imports none of them.
_COMMANDS = {
    "run": ("linnix_core.cli.run", "Follow the processes of this machine until interrupted."),
    "plugins": ("linnix_core.cli.plugins", "Show what is installed and why it runs or not."),
    "config": ("linnix_core.cli.config", "Write, check or show the configuration."),
    "doctor": ("linnix_core.cli.doctor", "Find out what Linnix can see here, and what is missing."),
}


class _Group(click.Group):
    """Commands of the core and of the installed plugins, each imported when invoked."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*_COMMANDS, *sorted(_of_plugins(ctx))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        import importlib

        if cmd_name in _COMMANDS:
            module = importlib.import_module(_COMMANDS[cmd_name][0])
            command: click.Command = module.command
            return command
        if cmd_name in _of_plugins(ctx):
            return _plugin_command(ctx, cmd_name)
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        typed = args[0] if args else "-"
        if not (typed.startswith("-") or typed in _COMMANDS or typed in _of_plugins(ctx)):
            import difflib

            close = difflib.get_close_matches(typed, self.list_commands(ctx), n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise click.UsageError(f"No such command {typed!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from linnix_core.escape import printable

        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in _COMMANDS.items()])
        plugins = _of_plugins(ctx)
        if plugins:
            with formatter.section("Commands of plugins"):
                formatter.write_dl(
                    [(printable(name), printable(plugins[name])) for name in sorted(plugins)]
                )


def _installed(ctx: click.Context) -> Catalog:
    """What is installed, looked for once in an invocation: it is half of what ``--help`` costs."""
    from linnix_core.catalog import Catalog

    if "linnix.catalog" not in ctx.meta:
        ctx.meta["linnix.catalog"] = Catalog.scan()
    catalog: Catalog = ctx.meta["linnix.catalog"]
    return catalog


def _of_plugins(ctx: click.Context) -> dict[str, str]:
    return {
        record.name: record.reason or f"from {record.source}"
        for record in _installed(ctx).of_kind("commands")
        if record.name not in _COMMANDS
    }


def _plugin_command(ctx: click.Context, name: str) -> click.Command:
    from linnix_core.errors import PluginError
    from linnix_core.loading import load

    command = load(_installed(ctx).find("commands", name))
    if not isinstance(command, click.Command):
        raise PluginError("hooks", f"linnix {name} is no click command")
    return command


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 ok, 1 failed while running, 2 usage or configuration, "
    "3 a required component failed.",
)
@click.option("-v", "--verbose", count=True, help="Say more; twice for everything.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.version_option(__version__, "-V", "--version", message="linnix %(version)s")
def cli(verbose: int, debug: bool) -> None:
    """Follow the processes of this machine, notice incidents, and say who and why."""
    from linnix_core.cli.log import configure

    configure(2 if debug else verbose)
