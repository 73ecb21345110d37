"""``linnix license``: show, install and verify licenses; for issuers, sign them."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from linnix_core import LinnixError, printable

if TYPE_CHECKING:
    from linnix_plugin_enterprise.judging import Verdict

__all__ = ["command"]

_CONFIG = click.option("-c", "--config", metavar="FILE", help="Read this configuration.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_FILE = click.Path(path_type=Path)


class _Wrong(LinnixError):
    """What was asked for cannot be."""

    exit_code = 2


@click.group("license")
def command() -> None:
    """Show, install and verify the license of enterprise plugins. Nobody is asked for it."""


@command.command("show")
@_CONFIG
@_JSON
def show(config: str | None, as_json: bool) -> None:
    """Show the license that is installed, its state, and what this machine is called."""
    folder = _folder(config)
    _print(_judge(folder, None), folder, as_json)


@command.command("verify")
@click.argument("file", required=False, type=_FILE)
@_CONFIG
@_JSON
def verify(file: Path | None, config: str | None, as_json: bool) -> None:
    """Tell whether the license that is installed, or the one in FILE, holds here and now.

    Exit code 1 if it does not.
    """
    folder = _folder(config)
    if file is not None and not file.exists():
        raise _Wrong(f"{file} does not exist")
    verdict = _judge(folder, file)
    _print(verdict, folder, as_json)
    if not verdict.holds:
        raise SystemExit(1)


@command.command("install")
@click.argument("file", type=_FILE)
@_CONFIG
def install(file: Path, config: str | None) -> None:
    """Install a license, or a list of revoked ones; what is there is replaced."""
    from linnix_plugin_enterprise.judging import Verdict
    from linnix_plugin_enterprise.judging import install as install_document

    folder = _folder(config)
    done = install_document(folder, file, time.time())
    if isinstance(done, Verdict):
        _print(done, folder, as_json=False)
        click.echo("Plugins that run already ask for it when they start next.")
    else:
        click.echo(f"{len(done.revoked)} revoked licenses, as of {printable(done.issued)}")


def _folder(config: str | None) -> Path:
    from linnix_core.commands import find_file, read
    from linnix_plugin_enterprise.store import folder_below

    return folder_below(read(find_file(config)).agent.data_folder())


def _judge(folder: Path, file: Path | None) -> Verdict:
    from linnix_plugin_enterprise.judging import judge

    return judge(folder, time.time(), file=file)


def _print(verdict: Verdict, folder: Path, as_json: bool) -> None:
    from linnix_plugin_enterprise.machine import machine_id

    here = machine_id()
    if as_json:
        shown: dict[str, Any] = {**verdict.as_json(), "machine": here, "folder": str(folder)}
        click.echo(json.dumps(shown, indent=2))
        return
    lines: list[tuple[str, str]] = [("state", verdict.state)]
    if verdict.reason:
        lines.append(("reason", verdict.reason))
    if verdict.hint:
        lines.append(("next step", verdict.hint))
    if found := verdict.license:
        lines += [
            ("license", found.id),
            ("customer", found.customer),
            ("capabilities", ", ".join(found.capabilities)),
            ("hosts", str(found.hosts) + (" (named)" if found.machines else "")),
            ("begins", f"{found.begins_at:%Y-%m-%d %H:%M} UTC"),
            ("ends", f"{found.ends_at:%Y-%m-%d %H:%M} UTC, {found.grace_days} days of grace"),
        ]
    lines += [("this machine", here or "has no id"), ("folder", str(folder))]
    for name, value in lines:
        click.echo(f"{name:<13} {printable(value)}")


# --- for issuers --------------------------------------------------------------------------


@command.group("issue")
def issue() -> None:
    """For whoever issues licenses: make keys, sign licenses and lists of revoked ones."""


@issue.command("key")
@click.argument("folder", type=_FILE)
@click.option("--name", default="linnix", show_default=True, help="Of the two files.")
def key(folder: Path, name: str) -> None:
    """Make NAME.private.pem, which stays secret, and NAME.pem, which a release builds in."""
    from linnix_plugin_enterprise.issuing import new_key

    if "/" in name or name in ("", ".", ".."):
        raise _Wrong(f"{name!r} is no name of a file")
    new_key(folder, name)
    click.echo(f"{folder / name}.private.pem and {folder / name}.pem written")


@issue.command("license")
@click.option("--key", "key_file", type=_FILE, required=True, help="The private key.")
@click.option("--customer", required=True)
@click.option("--capability", "capabilities", multiple=True, required=True)
@click.option("--hosts", type=int, default=1, show_default=True)
@click.option("--machine", "machines", multiple=True, help="Good on this one; see `show`.")
@click.option("--begins", metavar="TIME", help="2027-01-31T00:00:00Z.  [default: now]")
@click.option("--days", type=int, default=365, show_default=True)
@click.option("--grace-days", type=int, default=14, show_default=True)
@click.option("-o", "--output", type=_FILE, required=True)
def sign(
    key_file: Path,
    customer: str,
    capabilities: tuple[str, ...],
    hosts: int,
    machines: tuple[str, ...],
    begins: str | None,
    days: int,
    grace_days: int,
    output: Path,
) -> None:
    """Sign a license with a new id, and print the id."""
    from linnix_plugin_enterprise.issuing import new_license, signed_license, write_new
    from linnix_plugin_enterprise.keys import private_key

    try:
        moment = datetime.fromisoformat(begins) if begins else None
        if moment is not None and moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        license_ = new_license(
            customer, capabilities, begins=moment, days=days,
            hosts=hosts, machines=machines, grace_days=grace_days,
        )  # fmt: skip
    except (ValueError, OverflowError) as error:
        raise _Wrong(str(error)) from None
    write_new(output, signed_license(license_, private_key(key_file)))
    click.echo(license_.id)


@issue.command("revocations")
@click.argument("ids", nargs=-1)
@click.option("--key", "key_file", type=_FILE, required=True, help="The private key.")
@click.option("-o", "--output", type=_FILE, required=True)
def revoke(ids: tuple[str, ...], key_file: Path, output: Path) -> None:
    """Sign the list of all licenses that are revoked: IDS."""
    from linnix_plugin_enterprise.issuing import signed_revocations, write_new
    from linnix_plugin_enterprise.keys import private_key

    write_new(output, signed_revocations(ids, private_key(key_file)))
