"""``linnix sync``: copy folders to mounts and hosts by the rules of ``sync.toml``."""

from __future__ import annotations

import click

from linnix_core import LinnixError, printable
from linnix_plugin_models.display import (
    amount,
    json_option,
    print_json,
    progress_bar,
    show_pairs,
    show_table,
)
from linnix_plugin_models.files import Files, file_group, pass_files

__all__ = ["command"]


command = file_group("sync", "Copy folders to mounts and hosts, by the rules of sync.toml.")


@command.command("list")
@json_option
@pass_files
def list_rules(files: Files, as_json: bool) -> None:
    """List the rules."""
    rules = files.sync.sync
    if as_json:
        print_json(
            [
                {
                    "name": name,
                    "source": str(rule.source),
                    "destinations": list(rule.destinations),
                    "exclude_patterns": list(rule.exclude_patterns),
                }
                for name, rule in rules.items()
            ]
        )
        return
    if not rules:
        click.echo(f"There is no rule [sync.NAME] in {printable(files.sync.source)}.")
        return
    rows = [
        (name, str(rule.source), ", ".join(rule.destinations), ", ".join(rule.exclude_patterns))
        for name, rule in rules.items()
    ]
    show_table("Rules", ("NAME", "SOURCE", "DESTINATIONS", "WITHOUT"), rows)


@command.command("show")
@click.argument("name")
@json_option
@pass_files
def show(files: Files, name: str, as_json: bool) -> None:
    """Show what the rule NAME takes, and where each destination really is."""
    from linnix_plugin_models.syncing import destinations, files_of, find_rule

    sync = files.sync
    rule = find_rule(sync, name)
    taken = list(files_of(rule))
    size = sum(told.st_size for _, told in taken)
    places = {
        each.text: str(each.local)
        if each.local is not None
        else f"{each.host.hostname if each.host else ''}:{each.remote}"
        for each in destinations(sync, rule)
    }
    if as_json:
        print_json(
            {
                "name": name,
                "source": str(rule.source),
                "files": [path for path, _ in taken],
                "size": size,
                "destinations": places,
                "exclude_patterns": list(rule.exclude_patterns),
            }
        )
        return
    show_pairs(
        f"{name}: {rule.source}",
        [
            ("Taken", [("files", str(len(taken))), ("size", amount(size)),
                       ("without", ", ".join(rule.exclude_patterns))]),
            ("Destinations", list(places.items())),
        ],
    )  # fmt: skip


@command.command("run")
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Say what would be copied, and copy nothing.")
@json_option
@pass_files
def run(files: Files, name: str, dry_run: bool, as_json: bool) -> None:
    """Copy what changed by the rule NAME; exit code 1 if a destination fails."""
    import attrs

    from linnix_plugin_models.syncing import run_rule

    with progress_bar(name) as progress:
        outcomes = run_rule(files.sync, name, dry_run=dry_run, progress=progress)
    if as_json:
        print_json([attrs.asdict(outcome) for outcome in outcomes])
    else:
        for outcome in outcomes:
            if dry_run:
                for path in outcome.files:
                    click.echo(f"{printable(outcome.destination)} {printable(path)}")
            said = (
                f"failed: {outcome.error}"
                if outcome.error
                else f"{len(outcome.files)} files {'to copy' if dry_run else 'copied'} "
                f"({amount(outcome.size)}, {outcome.method}), {outcome.unchanged} unchanged"
            )
            click.echo(f"{printable(outcome.destination)}: {printable(said)}")
    failed = [outcome for outcome in outcomes if outcome.error]
    if failed and not as_json:
        raise LinnixError(f"{len(failed)} of {len(outcomes)} destinations failed")
    if failed:
        raise SystemExit(1)
