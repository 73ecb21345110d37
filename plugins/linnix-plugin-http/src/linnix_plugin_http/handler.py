"""The handler: takes the records of the run in, and has them served."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

from linnix_core import (
    Alert,
    Batch,
    Context,
    Feedback,
    Health,
    Incident,
    Insight,
    Metric,
    hookimpl,
)
from linnix_plugin_http.config import HttpConfig, is_loopback, split_address
from linnix_plugin_http.state import State
from linnix_plugin_http.stream import Stream, Streamed

if TYPE_CHECKING:
    from linnix_plugin_http.server import Server

__all__ = ["HttpHandler"]


class HttpHandler:
    """Serve what the host does, and why, over HTTP and as a stream of events."""

    Config = HttpConfig

    def __init__(self, config: HttpConfig, context: Context) -> None:
        self._config = config
        self._context = context
        self._state = State()
        self._stream = Stream(config.history)
        self._server: Server | None = None
        self._stopped = False
        self._lock = threading.Lock()
        #: Where it listens, as the start of URLs; the unix socket is not among them.
        self.urls: tuple[str, ...] = ()

    @hookimpl
    def linnix_start(self) -> None:
        """Bind, and make everything ready that may need the rights of the start."""
        from linnix_plugin_http.api import Api
        from linnix_plugin_http.app import App
        from linnix_plugin_http.security import Gate
        from linnix_plugin_http.server import Listener, Server, bind

        config = self._config
        api = Api(config, self._context, self._state, self._stream)
        app = App(api, self._context.logger)

        def gate(listener: Listener) -> Gate:
            return Gate(
                app,
                required=app.required,
                # A unix socket is protected by its mode.
                tokens=() if listener.path is not None else config.tokens,
                names=listener.names,
                local=listener.local,
                max_body=config.max_body,
            )

        listeners = bind(config)
        try:
            server = Server(
                listeners,
                gate,
                self._stream,
                max_connections=config.max_connections,
                logger=self._context.logger,
            )
        except BaseException:
            for listener in listeners:
                listener.close()
            raise
        scheme = "https" if config.tls_certificate else "http"
        self.urls = tuple(
            f"{scheme}://{_address(listener.socket.getsockname())}"
            for listener in listeners
            if listener.path is None
        )
        with self._lock:
            self._server = server

    @hookimpl
    def linnix_ready(self) -> None:
        """Serve; whoever has connected before is served now."""
        if self._server is not None:
            self._server.begin()
            for url in self.urls:
                self._context.logger.info("serving %s", url)

    @hookimpl
    def linnix_handle(self, batch: Batch) -> None:
        """Append to the history, and count."""
        self._state.take(batch)
        self._stream.publish(batch)

    @hookimpl
    def linnix_alert(self, alert: Alert) -> None:
        """Remember, and pass on to those who read."""
        self._state.take_alert(alert)
        self._publish(alert)

    @hookimpl
    def linnix_incident(self, incident: Incident) -> None:
        """Remember, and pass on to those who read."""
        self._state.take_incident(incident)
        self._publish(incident)

    @hookimpl
    def linnix_insight(self, insight: Insight) -> None:
        """Remember, and pass on to those who read."""
        self._state.take_insight(insight)
        self._publish(insight)

    @hookimpl
    def linnix_feedback(self, feedback: Feedback) -> None:
        """Remember, and pass on to those who read."""
        self._state.take_feedback(feedback)
        self._publish(feedback)

    @hookimpl
    def linnix_health(self) -> Health:
        """Whether it serves; the limits say what is less protected than it could be."""
        with self._lock:
            server, stopped = self._server, self._stopped
        limits = tuple(self._limits())
        if server is not None and not stopped and (why := server.failure):
            return Health("failed", f"nothing is served any more: {why}", limits)
        return Health(limits=limits)

    @hookimpl
    def linnix_metrics(self) -> Iterable[Metric]:
        """Who reads, and who was too slow."""
        stream = self._stream
        return (
            Metric("http_subscribers", len(stream), "{subscriber}", help="Streams being read"),
            Metric(
                "http_dropped_subscribers",
                stream.dropped_subscribers,
                "{subscriber}",
                "counter",
                help="Streams that were ended because their reader was too slow",
            ),
            Metric(
                "http_stream_lost_records",
                stream.lost_records,
                "{record}",
                "counter",
                help="Records that those readers had not had",
            ),
        )

    @hookimpl
    def linnix_stop(self, deadline: float) -> None:
        """Say good-bye to those who read, and end."""
        with self._lock:
            server, self._server, self._stopped = self._server, None, True
        if server is not None and not server.stop(deadline):
            self._context.logger.warning("connections were left open: they did not end in time")

    def _publish(self, record: Streamed) -> None:
        self._stream.publish((record,))

    def _limits(self) -> Iterable[str]:
        config = self._config
        if not config.listen or is_loopback(split_address(config.listen)[0]):
            return
        if not config.tokens:
            yield f"whoever reaches {config.listen} may read: there are no tokens"
        if not config.tls_certificate:
            yield "tokens travel unencrypted: there is no tls_certificate"


def _address(name: tuple[str, int]) -> str:
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
