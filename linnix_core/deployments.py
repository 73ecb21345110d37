"""Deployments that outlive the command that made them: who serves what, and where."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from linnix_core.errors import LinnixError
from linnix_core.records import Deployment, Health, ModelSpec

if TYPE_CHECKING:
    from linnix_core.plugins import Component, PluginHost

__all__ = ["DeploymentStore", "deploy", "probe", "undeploy"]

#: Seconds for a deployer to bring a model up, to take it down, and to answer a probe. Bringing it
#: up may mean to send tens of gigabytes; whoever does not want to wait interrupts the command.
DEPLOY_TIMEOUT_S = 6 * 3600.0
UNDEPLOY_TIMEOUT_S = 60.0
PROBE_TIMEOUT_S = 60.0


class DeploymentStore:
    """A JSON file of deployments by name, private, locked and replaced as a whole.

    A file that cannot be read is an error and is never overwritten.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, name: str) -> Deployment | None:
        """One by its name."""
        return self._read().get(name)

    def list(self) -> list[Deployment]:
        """All, by name."""
        return [deployment for _, deployment in sorted(self._read().items())]

    def put(self, deployment: Deployment) -> None:
        """Add one or replace the one of the same name."""
        self._change(lambda all_of_them: all_of_them.__setitem__(deployment.name, deployment))

    def remove(self, name: str) -> None:
        """Forget one; doing it twice is not an error."""
        self._change(lambda all_of_them: all_of_them.pop(name, None))

    def _read(self) -> dict[str, Deployment]:
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
            return {item["name"]: Deployment(**item) for item in stored["deployments"]}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise LinnixError(
                f"{self.path} cannot be read as a list of deployments: {error}",
                hint="restore it, or move it away to begin with an empty one",
            ) from error

    def _change(self, change: Callable[[dict[str, Deployment]], Any]) -> None:
        try:
            self._replace(change)
        except (OSError, TypeError, ValueError) as error:
            raise LinnixError(f"{self.path} cannot be written: {error}") from error

    def _replace(self, change: Callable[[dict[str, Deployment]], Any]) -> None:
        with self._locked():
            stored = self._read()
            change(stored)
            items = [attrs.asdict(deployment) for _, deployment in sorted(stored.items())]
            handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=".deployments-")
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    json.dump({"deployments": items}, file, indent=2)
                    file.flush()
                    os.fsync(file.fileno())
                Path(temporary).replace(self.path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def deploy(host: PluginHost, store: DeploymentStore, spec: ModelSpec) -> Deployment:
    """Offer the model to the deployers in their order; remember what the first one made.

    None falls through to the next; an exception does not: that deployer felt responsible.
    What cannot be remembered is taken down again. Raises `LinnixError`, also when another
    deployer serves that name already.
    """
    known = store.get(spec.name)
    for component in host.implementing("linnix_deploy"):
        if known is not None and known.deployer != component.name:
            continue
        made = _call(component, DEPLOY_TIMEOUT_S, "linnix_deploy", spec=spec)
        if made is not None:
            return _remember(component, store, spec, made)
    if known is not None:
        raise LinnixError(
            f"{spec.name!r} is deployed by {known.deployer}, which does not take this",
            hint="undeploy it first, or choose another name",
        )
    raise LinnixError(f"no deployer takes {spec.name!r} ({spec.format})")


def _remember(
    component: Component, store: DeploymentStore, spec: ModelSpec, made: Any
) -> Deployment:
    if not isinstance(made, Deployment):
        raise LinnixError(f"{component} returned {type(made).__name__}, not Deployment")
    deployment = attrs.evolve(
        made,
        name=spec.name,
        deployer=component.name,
        created_ns=made.created_ns or time.time_ns(),
    )
    try:
        store.put(deployment)
    except (LinnixError, OSError, TypeError, ValueError) as error:
        _call(component, UNDEPLOY_TIMEOUT_S, "linnix_undeploy", deployment=made)
        raise LinnixError(f"{component} served {spec.name!r}, but {error}; undone") from error
    return deployment


def probe(host: PluginHost, deployment: Deployment) -> Health:
    """What its own deployer finds out about it."""
    component = _deployer(host, deployment)
    health = _call(component, PROBE_TIMEOUT_S, "linnix_probe", deployment=deployment)
    return health if isinstance(health, Health) else Health("degraded", "cannot be probed")


def undeploy(host: PluginHost, store: DeploymentStore, name: str) -> None:
    """Have its own deployer stop it, then forget it."""
    deployment = store.get(name)
    if deployment is None:
        raise LinnixError(f"there is no deployment called {name!r}")
    component = _deployer(host, deployment)
    _call(component, UNDEPLOY_TIMEOUT_S, "linnix_undeploy", deployment=deployment)
    store.remove(name)


def _call(component: Component, seconds: float, hook: str, **arguments: Any) -> Any:
    """What a deployer says for people, hint included, is not wrapped into anything."""
    try:
        return component.call_within(seconds, hook, **arguments)
    except LinnixError as error:
        if isinstance(error.__cause__, LinnixError):
            raise error.__cause__ from None
        raise


def _deployer(host: PluginHost, deployment: Deployment) -> Component:
    for component in host.components:
        if component.kind == "deployers" and component.name == deployment.deployer:
            if component.runs:
                return component
            break
    raise LinnixError(
        f"{deployment.name} was deployed by {deployment.deployer}, which does not run",
        hint=f"pip install linnix-plugin-{deployment.deployer}",
    )
