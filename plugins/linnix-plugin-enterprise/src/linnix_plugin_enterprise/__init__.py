"""Licenses of enterprise plugins, checked offline, and what the editions hold.

An enterprise plugin asks for its capability when it starts:

    from linnix_plugin_enterprise import require

    @hookimpl
    def linnix_start(self, context):
        require("anomaly", context)
"""

from __future__ import annotations

from linnix_plugin_enterprise.__about__ import __version__
from linnix_plugin_enterprise.asking import require
from linnix_plugin_enterprise.handler import EnterpriseHandler

__all__ = ["EnterpriseHandler", "__version__", "require"]
