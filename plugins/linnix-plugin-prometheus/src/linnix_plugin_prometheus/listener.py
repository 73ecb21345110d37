"""The second listener: uvicorn in a thread of its own, on an address of this machine."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

from linnix_core import PluginUnavailable
from linnix_plugin_prometheus.config import split_address

__all__ = ["Listener"]

#: Connections at a time; more get 503.
MAX_CONNECTIONS = 32

#: Seconds that an idle connection is kept.
KEEP_ALIVE_S = 5


class Listener:
    """Bound when it is made, and served from `start` on, until `stop`.

    Raises `PluginUnavailable` where the address cannot be had.
    """

    def __init__(self, address: str, app: Any) -> None:
        host, port = split_address(address)
        self._app = app
        self._server: Any = None
        self._thread: threading.Thread | None = None
        self._stopped = False
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((host, port))
            self._socket.listen(MAX_CONNECTIONS)
        except OSError as error:
            self._socket.close()
            raise PluginUnavailable(
                f"metrics_listen: {address} cannot be had: {error.strerror}",
                hint="choose another port, or end what listens there",
            ) from None

    @property
    def port(self) -> int:
        """The port that was asked for, or the one that was found for 0."""
        port: int = self._socket.getsockname()[1]
        return port

    @property
    def ended(self) -> bool:
        """Whether serving ended without `stop`."""
        return self._thread is not None and not (self._thread.is_alive() or self._stopped)

    def start(self) -> None:
        """Serve from now on."""
        self._server = self._make_server()
        self._thread = threading.Thread(
            target=self._server.run,
            kwargs={"sockets": [self._socket]},
            name="linnix-prometheus",
            daemon=True,
        )
        self._thread.start()

    def stop(self, deadline: float) -> None:
        """Stop serving and close, waiting until the monotonic ``deadline`` at most."""
        self._stopped = True
        if self._thread is not None:
            self._server.should_exit = True
            self._thread.join(max(deadline - time.monotonic(), 0.0))
        self._socket.close()

    def _make_server(self) -> Any:
        import uvicorn

        return uvicorn.Server(
            uvicorn.Config(
                self._app,
                lifespan="off",
                ws="none",
                http="h11",
                loop="asyncio",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                date_header=False,
                proxy_headers=False,
                limit_concurrency=MAX_CONNECTIONS,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=1,
            )
        )
