"""The handler and its configuration."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable

import attrs

from linnix_core import Context, Duration, Health, Mount, PluginUnavailable, Secret, hookimpl
from linnix_plugin_notify import NotifyConfig, NotifyHandler, Sink
from linnix_plugin_slack.feedback import FeedbackApp, SocketListener
from linnix_plugin_slack.sinks import BotSink, WebhookSink

__all__ = ["SlackConfig", "SlackHandler"]

_CHANNEL = re.compile(r"[CDG][A-Z0-9]{6,}")


def _channel_id(instance: object, attribute: attrs.Attribute[str], value: str) -> None:
    if value and not _CHANNEL.fullmatch(value):
        raise ValueError(
            f"{attribute.name} must be the id of a channel such as C0123456789, got {value!r}: "
            "Slack shows it at the end of the channel's details"
        )


def _alone(instance: SlackConfig, attribute: object, value: Secret | None) -> None:
    if value is not None and (instance.webhook_url is not None or instance.webhook_urls):
        raise ValueError("bot_token and webhook_url exclude each other: choose one")


def _web_address(instance: object, attribute: attrs.Attribute[str], value: str) -> None:
    if not _is_web_address(value):
        raise ValueError(f"{attribute.name} must begin with https://, got {value!r}")


def _is_web_address(value: str) -> bool:
    return value.startswith(("https://", "http://127.0.0.1:", "http://[::1]:"))


@attrs.frozen(kw_only=True)
class SlackConfig(NotifyConfig):
    """The keys of ``[handlers.slack]``."""

    channel: str = attrs.field(
        default="",
        validator=_channel_id,
        metadata={"help": "id of the channel, with bot_token; routes name others in 'to'"},
    )
    webhook_url: Secret | None = attrs.field(
        default=None, metadata={"help": "an incoming webhook, in place of bot_token"}
    )
    webhook_urls: dict[str, Secret] = attrs.field(
        factory=dict, metadata={"help": "more incoming webhooks, by a name for 'to' of routes"}
    )
    bot_token: Secret | None = attrs.field(
        default=None, validator=_alone, metadata={"help": "xoxb-…: messages change in place"}
    )
    # Whoever was told that it is over would have to be told again, where no message can be changed.
    resolve_after: Duration = attrs.field(
        default=attrs.Factory(
            lambda self: Duration(900.0 if self.bot_token is None else 0.0), takes_self=True
        ),
        metadata={
            "help": "how long an incident must be over before that is told; "
            "else 0s with bot_token, 15m with a webhook"
        },
    )
    app_token: Secret | None = attrs.field(
        default=None, metadata={"help": "xapp-…: listen to the buttons through Socket Mode"}
    )
    signing_secret: Secret | None = attrs.field(
        default=None, metadata={"help": "listen to the buttons at /slack/feedback of the API"}
    )
    url: str = attrs.field(
        default="https://slack.com/api/",
        validator=_web_address,
        metadata={"help": "Slack's Web API"},
    )


class SlackHandler(NotifyHandler):
    """Tell people in Slack: one message per incident, changed in place, with buttons."""

    Config = SlackConfig

    config: SlackConfig

    def __init__(self, config: SlackConfig, context: Context) -> None:
        super().__init__(config, context)
        self._listener: SocketListener | None = None
        if config.bot_token is not None and config.app_token is not None:
            self._listener = SocketListener(
                config.app_token.reveal(),
                url=config.url,
                timeout_s=config.timeout,
                say=context.feedback,
                logger=context.logger,
            )

    @classmethod
    def open_sink(cls, config: SlackConfig, logger: logging.Logger) -> Sink:
        """A client for the bot, or for the webhooks."""
        if config.bot_token is not None:
            for route in config.all_routes():
                if route.tell and not _CHANNEL.fullmatch(route.to or config.channel):
                    raise PluginUnavailable(
                        f"the route {route.name} has no channel",
                        hint="set channel, or 'to' of the route, to an id such as C0123456789",
                    )
            return BotSink(
                config.bot_token.reveal(),
                url=config.url,
                timeout_s=config.timeout,
                buttons=bool(config.app_token or config.signing_secret),
                logger=logger,
            )
        urls = {name: secret.reveal() for name, secret in config.webhook_urls.items()}
        if config.webhook_url is not None:
            urls[""] = config.webhook_url.reveal()
        for route in config.all_routes():
            if route.tell and not _is_web_address(urls.get(route.to, "")):
                key = f"webhook_urls.{route.to}" if route.to else "webhook_url"
                raise PluginUnavailable(
                    f"the route {route.name} leads nowhere",
                    hint=f"set bot_token and channel, or {key} to an incoming webhook (https://…)",
                )
        return WebhookSink(urls, timeout_s=config.timeout)

    @classmethod
    def default_target(cls, config: SlackConfig) -> str:
        """The channel of the bot."""
        return config.channel if config.bot_token is not None else ""

    @hookimpl
    def linnix_http(self) -> Iterable[Mount]:
        """Where Slack sends what people click, if a signing secret is set."""
        if self.config.signing_secret is None:
            return []
        app = FeedbackApp(
            self.config.signing_secret.reveal(),
            say=self.context.feedback,
            logger=self.context.logger,
        )
        return [Mount("/slack/feedback", app, "Buttons in Slack")]

    @hookimpl
    def linnix_stop(self, deadline: float) -> None:
        """Listen no more, deliver what is due until then."""
        if self._listener is not None:
            self._listener.stop(min(deadline, time.monotonic() + 1.0))
        super().linnix_stop(deadline)

    @hookimpl
    def linnix_health(self) -> Health:
        """That of the deliveries, and whether somebody listens to the buttons."""
        health = super().linnix_health()
        if self._listener is None or not self._listener.problem:
            return health
        return attrs.evolve(health, limits=(*health.limits, self._listener.problem))

    @hookimpl
    def linnix_ready(self) -> None:
        """Begin to deliver and to listen."""
        super().linnix_ready()
        if self._listener is not None:
            self._listener.start()
