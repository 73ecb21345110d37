"""The handler and its configuration."""

from __future__ import annotations

import logging

import attrs

from linnix_core import Duration, PluginUnavailable, Secret
from linnix_plugin_apprise.sink import AppriseSink
from linnix_plugin_notify import NotifyConfig, NotifyHandler

__all__ = ["AppriseConfig", "AppriseHandler"]


@attrs.frozen(kw_only=True)
class AppriseConfig(NotifyConfig):
    """The keys of ``[handlers.apprise]``."""

    urls: tuple[Secret, ...] = attrs.field(
        default=(), metadata={"help": "Apprise addresses that are told; they hold secrets"}
    )
    groups: dict[str, tuple[Secret, ...]] = attrs.field(
        factory=dict, metadata={"help": "more addresses, by a name for 'to' of routes"}
    )
    # Whoever was told that it is over would have to be told again.
    resolve_after: Duration = attrs.field(
        default=Duration(900.0),
        metadata={"help": "how long an incident must be over before that is told"},
    )


class AppriseHandler(NotifyHandler):
    """Tell people through Apprise: a message when an incident opens, another when it is over."""

    Config = AppriseConfig

    @classmethod
    def open_sink(cls, config: AppriseConfig, logger: logging.Logger) -> AppriseSink:  # noqa: ARG003
        """Apprise, with every address that a route may use."""
        groups = {name: [u.reveal() for u in urls] for name, urls in config.groups.items()}
        if config.urls:
            groups[""] = [secret.reveal() for secret in config.urls]
        for route in config.all_routes():
            if route.tell and not groups.get(route.to):
                key = f"groups.{route.to}" if route.to else "urls"
                raise PluginUnavailable(
                    f"the route {route.name} leads nowhere",
                    hint=f"set {key} to addresses as Apprise writes them",
                )
        return AppriseSink(groups, timeout_s=config.timeout)
