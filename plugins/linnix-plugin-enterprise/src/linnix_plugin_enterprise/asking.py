"""The call with which a plugin asks whether it may run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from linnix_core import Context, PluginUnavailable

if TYPE_CHECKING:
    from linnix_plugin_enterprise.licenses import License

__all__ = ["require"]


def require(capability: str, context: Context) -> License:
    """The license that names ``capability``, or `PluginUnavailable` with why and what to do.

    Call it in ``linnix_start``. Nothing is cached and nobody is asked over a network: a
    license that was replaced is seen by the next call.
    """
    from linnix_plugin_enterprise.judging import judge
    from linnix_plugin_enterprise.store import folder_of

    try:
        folder = folder_of(context)
    except OSError as error:
        raise PluginUnavailable(
            f"{capability} needs a license, and its folder cannot be read: {error.strerror}",
            hint="see agent.data_dir",
        ) from None
    verdict = judge(folder, context.clock.time_ns() / 1e9, keep=True)
    if not verdict.holds or verdict.license is None:
        raise PluginUnavailable(
            f"{capability} needs a license: {verdict.reason}", hint=verdict.hint
        )
    if not verdict.allows(capability):
        named = ", ".join(verdict.license.capabilities)
        raise PluginUnavailable(
            f"{capability} needs a license: the one that is installed names {named} only",
            hint=f"ask for one that names {capability}, then: linnix license install FILE",
        )
    if verdict.state == "grace":
        context.logger.warning("%s", verdict.reason)
    return verdict.license
