"""Sockets that are bound at the start, and the thread in which uvicorn serves them."""

from __future__ import annotations

import asyncio
import errno
import grp
import logging
import os
import socket
import ssl
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from linnix_core import PluginUnavailable
from linnix_plugin_http.config import HttpConfig, is_loopback, split_address
from linnix_plugin_http.stream import Stream

__all__ = ["Listener", "Server", "bind"]

#: Connections that may wait to be accepted.
BACKLOG = 128

#: Seconds that a connection may be open without a request of which the head is complete.
HEAD_S = 20.0

#: Bytes of the head of one request.
HEAD_BYTES = 32 * 1024

#: Seconds for responses that are under way to end when the agent stops.
DRAIN_S = 2.0


class Listener:
    """A socket that listens already; ``names`` are what people may call it, None for any."""

    def __init__(
        self,
        sock: socket.socket,
        *,
        names: frozenset[str] | None,
        local: bool,
        tls: ssl.SSLContext | None = None,
        path: Path | None = None,
    ) -> None:
        self.socket = sock
        self.names = names
        self.local = local
        self.tls = tls
        self.path = path

    def close(self) -> None:
        """Close it, and take its file away."""
        self.socket.close()
        if self.path is not None:
            # Whoever the run has become may not be allowed to; the next start can.
            with suppress(OSError):
                self.path.unlink()


def bind(config: HttpConfig) -> list[Listener]:
    """Listen wherever the configuration says. Raises `PluginUnavailable` with the reason."""
    listeners: list[Listener] = []
    try:
        if config.listen:
            listeners.append(_bind_tcp(config))
        if config.unix_socket:
            listeners.append(_bind_unix(Path(config.unix_socket).expanduser(), config.unix_group))
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _bind_tcp(config: HttpConfig) -> Listener:
    host, port = split_address(config.listen)
    local = is_loopback(host)
    if not (local or config.tls_certificate or config.tokens):
        raise PluginUnavailable(
            f"{config.listen} can be reached from other machines, and nothing protects it",
            hint="add a token (`linnix http token new`) or tls_certificate, or listen on 127.0.0.1",
        )
    tls = _tls(config) if config.tls_certificate else None
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise PluginUnavailable(
            f"{host} is no address of this machine: {error.strerror}", hint="see listen"
        ) from error
    family, kind, protocol, _, address = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise _cannot_listen(config.listen, error) from error
    names = {"localhost", host, socket.gethostname(), *config.allowed_hosts}
    return Listener(sock, names=frozenset(names), local=local, tls=tls)


def _cannot_listen(where: str, error: OSError) -> PluginUnavailable:
    if error.errno == errno.EADDRINUSE:
        return PluginUnavailable(
            f"{where} is in use by another program",
            hint="`linnix run --handler http:127.0.0.1:PORT` takes another port",
        )
    return PluginUnavailable(f"cannot listen on {where}: {error.strerror}", hint="see listen")


def _tls(config: HttpConfig) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(config.tls_certificate, config.tls_key or None, password="")
    except (OSError, ssl.SSLError) as error:
        raise PluginUnavailable(
            f"tls_certificate {config.tls_certificate} cannot be used: {error}",
            hint="both have to be PEM files that belong together, without a passphrase",
        ) from error
    return context


def _bind_unix(path: Path, group: str) -> Listener:
    _clear(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(str(path))
        # Nobody can connect before it listens.
        path.chmod(0o660)
        if group:
            os.chown(path, -1, grp.getgrnam(group).gr_gid)
        sock.listen(BACKLOG)
    except (OSError, KeyError) as error:
        sock.close()
        said = error.strerror if isinstance(error, OSError) else f"there is no group {group}"
        raise PluginUnavailable(
            f"cannot listen on unix_socket {path}: {said}", hint="see unix_socket and unix_group"
        ) from error
    return Listener(sock, names=None, local=True, path=path)


def _clear(path: Path) -> None:
    """Take away the socket of a run that was killed; never anything else."""
    try:
        found = path.lstat()
    except OSError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise PluginUnavailable(
            f"unix_socket {path} is there already, and is no socket", hint="choose another path"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            with suppress(OSError):
                path.unlink()
            return
        except OSError:
            return
    raise PluginUnavailable(
        f"unix_socket {path} is in use by another program", hint="choose another path"
    )


class Server:
    """Serves listeners in a thread of its own, from `begin` to `stop`."""

    def __init__(
        self,
        listeners: list[Listener],
        make_app: Callable[[Listener], Any],
        stream: Stream,
        *,
        max_connections: int,
        logger: logging.Logger,
    ) -> None:
        # Their import takes longer than that of everything else together.
        import uvicorn

        class Quiet(uvicorn.Server):
            """Sleeps until the end: looking for it ten times a second is not idling."""

            async def main_loop(self) -> None:
                await self.on_tick(0)
                await ended.wait()

        # It would tell standard error of every request that is none; what fails, `App` logs.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self._listeners = listeners
        self._stream = stream
        self._logger = logger
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()
        self._failed: BaseException | None = None
        self._open_since: dict[Any, float] = {}
        self._servers: list[Any] = []
        ended = self._ended = asyncio.Event()
        for listener in listeners:
            config = uvicorn.Config(
                _Abortable(make_app(listener), self),
                loop="asyncio",
                # Written in Python, and bounds the head of a request.
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                # `Gate` tells the date: here it would be that of the start.
                date_header=False,
                limit_concurrency=max_connections,
                backlog=BACKLOG,
                timeout_keep_alive=30,
                h11_max_incomplete_event_size=HEAD_BYTES,
            )
            config.load()
            config.ssl = listener.tls
            self._servers.append(Quiet(config))
        self._thread = threading.Thread(target=self._run, name="linnix-http", daemon=True)

    def begin(self) -> None:
        """Start the thread. What has connected before is served now."""
        self._thread.start()

    @property
    def begun(self) -> bool:
        """Whether the thread has been started."""
        return self._thread.ident is not None

    @property
    def failure(self) -> str:
        """Why it does not serve any more; empty while it does."""
        if self._failed is not None:
            return f"{type(self._failed).__name__}: {self._failed}"
        return "the server has ended" if self.begun and not self._thread.is_alive() else ""

    def stop(self, deadline: float) -> bool:
        """Have streams say good-bye, end, and wait until the monotonic ``deadline``."""
        if self.begun:
            self._ready.wait(max(deadline - time.monotonic(), 0.0))
        loop = self._loop
        if self.begun and loop is not None:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._drain)
            self._thread.join(max(deadline - time.monotonic() - 0.5, 0.0))
            if self._thread.is_alive():
                with suppress(RuntimeError):
                    loop.call_soon_threadsafe(self._abort_all)
                self._thread.join(max(deadline - time.monotonic(), 0.1))
        for listener in self._listeners:
            listener.close()
        return not self._thread.is_alive()

    # --- in the thread ----------------------------------------------------------------

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._failed = error
            self._logger.exception("the HTTP server has ended")
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(self._complain)
        self._stream.open()
        self._ready.set()
        watch = asyncio.create_task(self._watch())
        try:
            await asyncio.gather(
                *(
                    server.serve(sockets=[listener.socket])
                    for server, listener in zip(self._servers, self._listeners, strict=True)
                )
            )
        finally:
            watch.cancel()
            self._abort_all()
            # For transports to notice that they are closed.
            await asyncio.sleep(0)

    def _complain(self, loop: asyncio.AbstractEventLoop, said: dict[str, Any]) -> None:
        self._logger.debug("%s", said.get("message"), exc_info=said.get("exception"))

    async def _watch(self) -> None:
        """Close connections that bring no request: each one keeps somebody else out."""
        while True:
            await asyncio.sleep(HEAD_S / 4)
            now = time.monotonic()
            idle = {each for each in self._connections() if getattr(each, "cycle", True) is None}
            self._open_since = {each: self._open_since.get(each, now) for each in idle}
            for each, since in self._open_since.items():
                if now - since > HEAD_S:
                    each.transport.abort()

    def _connections(self) -> Iterator[Any]:
        for server in self._servers:
            yield from list(server.server_state.connections)

    def _drain(self) -> None:
        self._stream.close()
        for server in self._servers:
            server.should_exit = True
        self._ended.set()
        if self._loop is not None:
            self._loop.call_later(DRAIN_S, self._abort_all)

    def _abort_all(self) -> None:
        for each in self._connections():
            each.transport.abort()
        for server in self._servers:
            server.force_exit = True

    def abort(self, scope: Any) -> None:
        """End the connection of a request at once, whatever waits to be sent on it."""
        for each in self._connections():
            if getattr(each.cycle, "scope", None) is scope:
                each.transport.abort()


class _Abortable:
    """Gives the application a way to end the connection of a request: ``linnix_abort``."""

    def __init__(self, app: Any, server: Server) -> None:
        self._app = app
        self._server = server

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        scope["linnix_abort"] = lambda: self._server.abort(scope)
        await self._app(scope, receive, send)
