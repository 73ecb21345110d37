"""The handler and its configuration."""

from __future__ import annotations

import logging

import attrs

from linnix_core import Duration, PluginUnavailable, Secret
from linnix_plugin_notify import NotifyConfig, NotifyHandler
from linnix_plugin_pagerduty.sink import PagerDutySink

__all__ = ["PagerDutyConfig", "PagerDutyHandler"]


def _web_address(instance: object, attribute: attrs.Attribute[str], value: str) -> None:
    local = value.startswith(("http://127.0.0.1:", "http://[::1]:"))
    if not (value.startswith("https://") or local):
        raise ValueError(f"{attribute.name} must begin with https://, got {value!r}")


@attrs.frozen(kw_only=True)
class PagerDutyConfig(NotifyConfig):
    """The keys of ``[handlers.pagerduty]``."""

    routing_key: Secret | None = attrs.field(
        default=None, metadata={"help": "integration key of an Events API v2 integration"}
    )
    routing_keys: dict[str, Secret] = attrs.field(
        factory=dict, metadata={"help": "more integration keys, by a name for 'to' of routes"}
    )
    url: str = attrs.field(
        default="https://events.pagerduty.com",
        validator=_web_address,
        metadata={"help": "the Events API of your service region"},
    )
    # What comes back after its end calls somebody again; the core's quarter of an hour in
    # which an incident comes back as itself is waited for.
    resolve_after: Duration = attrs.field(
        default=Duration(900.0),
        metadata={"help": "how long an incident must be over before that is told"},
    )


class PagerDutyHandler(NotifyHandler):
    """Page through the PagerDuty Events API v2: one alert per incident, resolved at its end."""

    Config = PagerDutyConfig

    @classmethod
    def open_sink(cls, config: PagerDutyConfig, logger: logging.Logger) -> PagerDutySink:  # noqa: ARG003
        """A client for the Events API, with every key that a route may use."""
        keys = {name: secret.reveal() for name, secret in config.routing_keys.items()}
        if config.routing_key is not None:
            keys[""] = config.routing_key.reveal()
        for route in config.all_routes():
            if route.tell and route.to not in keys:
                key = f"routing_keys.{route.to}" if route.to else "routing_key"
                raise PluginUnavailable(
                    f"the route {route.name} has no integration key",
                    hint=f"set {key} to the key of an Events API v2 integration",
                )
        return PagerDutySink(keys, url=config.url, timeout_s=config.timeout)
