"""``linnix parrot``: deploy a toy model, and take it away again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from linnix_core import ModelSpec
from linnix_core.catalog import Catalog
from linnix_core.config import find_file, read
from linnix_core.deployments import DeploymentStore
from linnix_core.deployments import deploy as deploy_model
from linnix_core.deployments import undeploy as undeploy_model
from linnix_core.plugins import PluginHost

_config = click.option("-c", "--config", metavar="FILE", help="Read this configuration.")
_name = click.option("--name", default="parrot", show_default=True, help="Name of the deployment.")


@contextmanager
def _deployer(config: str | None) -> Iterator[tuple[PluginHost, DeploymentStore]]:
    """The deployer without an agent, in the folder where agents look for deployments."""
    data_dir = read(find_file(config)).agent.data_folder()
    host = PluginHost(Catalog.scan(), data_dir=data_dir)
    try:
        host.open("deployers", "parrot")
        yield host, DeploymentStore(data_dir / "deployments.json")
    finally:
        host.stop(time.monotonic() + 5)


@click.group()
def parrot() -> None:
    """Serve a toy model on this machine."""


@parrot.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_name
@_config
def deploy(file: Path, name: str, config: str | None) -> None:
    """Serve the model in FILE; doing it twice changes nothing."""
    with _deployer(config) as (host, store):
        made = deploy_model(host, store, ModelSpec(name=name, path=str(file), format="parrot"))
    click.echo(f"{made.name} answers at {made.endpoint}")


@parrot.command()
@_name
@_config
def undeploy(name: str, config: str | None) -> None:
    """Stop serving a model."""
    with _deployer(config) as (host, store):
        undeploy_model(host, store, name)
    click.echo(f"{name} is gone")
