"""The keys of ``[deployers.halext]``, and who may hear which of the secrets."""

from __future__ import annotations

import os
from typing import ClassVar

import attrs

from linnix_core import LinnixError, PluginUnavailable, Secret, printable
from linnix_plugin_ollama import StoreConfig
from linnix_plugin_openai import Exchange, parse_address

__all__ = ["HalextConfig", "revealed"]


@attrs.frozen(kw_only=True)
class HalextConfig(StoreConfig):
    """The keys of ``[deployers.halext]``."""

    ARG: ClassVar[str] = "backend"

    backend: str | None = attrs.field(
        default=None,
        metadata={"help": "address of the backend that knows the nodes, such as https://HOST/api"},
    )
    username: str | None = attrs.field(
        default=None, metadata={"help": "account of the backend; else HALEXT_USERNAME"}
    )
    password: Secret | None = attrs.field(
        default=None, metadata={"help": "its password; else HALEXT_PASSWORD"}
    )
    token: Secret | None = attrs.field(
        default=None, metadata={"help": "token of the backend, in place of logging in"}
    )
    gateway_key: Secret | None = attrs.field(
        default=None, metadata={"help": "key of the gateways that are named; else HALEXT_API_KEY"}
    )
    node_key: Secret | None = attrs.field(
        default=None, metadata={"help": "key of the nodes that are named, where a proxy wants one"}
    )
    org_id: str | None = attrs.field(
        default=None, metadata={"help": "organization, for gateways; else HALEXT_ORG_ID"}
    )

    def __attrs_post_init__(self) -> None:
        if self.backend is not None:
            try:
                parse_address(self.backend, plain_http=self.plain_http)
            except ValueError as error:
                raise ValueError(f"backend {error}") from None
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password belong together")

    def address(self, text: str, what: str) -> str:
        """An address that may be asked. Raises `LinnixError`."""
        try:
            return parse_address(text, plain_http=self.plain_http)
        except ValueError as error:
            raise LinnixError(
                printable(f"{what} {error}", 300), hint="plain_http belongs into [deployers.halext]"
            ) from None

    def account(self) -> tuple[str, Secret] | None:
        """User and password of the backend."""
        if self.username is not None and self.password is not None:
            return self.username, self.password
        user, password = os.environ.get("HALEXT_USERNAME"), os.environ.get("HALEXT_PASSWORD")
        return (user, Secret(password, source="env HALEXT_PASSWORD")) if user and password else None

    def asking_gateway(self, url: str) -> Exchange:
        """What asks a gateway, with its key."""
        key = revealed(self.gateway_key) or os.environ.get("HALEXT_API_KEY", "").strip()
        organization = self.org_id or os.environ.get("HALEXT_ORG_ID", "")
        if not (organization.isascii() and organization.isprintable()):
            raise PluginUnavailable("org_id holds characters that no organization has")
        headers = {"x-halext-org-id": organization} if organization else {}
        return self.wire(url, key, {"x-halext-client": "linnix", **headers})

    def asking_node(self, url: str, *, is_named: bool) -> Exchange:
        """What asks a node; one that only a backend named gets no key."""
        return self.wire(url, revealed(self.node_key) if is_named else "")


def revealed(secret: Secret | None) -> str:
    """A secret itself; ``""`` without one."""
    return "" if secret is None else secret.reveal().strip()
