"""A stand-in for the OpenTelemetry Collector: the two protocols of OTLP, as it documents them."""

import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from google.rpc.error_details_pb2 import RetryInfo
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs_pb
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc as logs_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_pb
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc

PATIENCE_S = 30


class Collector:
    """What was received, in order; `answers` are given in turn, then everything is accepted.

    An answer is a number (the status), ``("retry", seconds)``, ``("partial", count, text)``,
    or an event that is waited for.
    """

    def __init__(self):
        self.changed = threading.Condition()
        self.requests = []
        self.headers = []
        self.attempts = 0
        self.answers = deque()

    def next_answer(self):
        with self.changed:
            self.attempts += 1
            self.changed.notify_all()
            return self.answers.popleft() if self.answers else None

    def accept(self, request, headers):
        with self.changed:
            self.requests.append(request)
            self.headers.append(headers)
            self.changed.notify_all()

    def wait_for(self, what):
        """Until ``what()`` is true; a test that waits forever fails."""
        with self.changed:
            assert self.changed.wait_for(what, PATIENCE_S), "the Collector did not get it"

    def logs(self):
        """Every log record that was accepted."""
        with self.changed:
            return [
                record
                for request in self.requests
                for resource in getattr(request, "resource_logs", ())
                for scope in resource.scope_logs
                for record in scope.log_records
            ]

    def metrics(self):
        """Every metric that was accepted."""
        with self.changed:
            return [
                metric
                for request in self.requests
                for resource in getattr(request, "resource_metrics", ())
                for scope in resource.scope_metrics
                for metric in scope.metrics
            ]

    def wait_for_logs(self, count):
        self.wait_for(lambda: len(self.logs()) >= count)
        return self.logs()


_KINDS = {
    "/v1/logs": (
        logs_pb.ExportLogsServiceRequest,
        logs_pb.ExportLogsServiceResponse,
        "rejected_log_records",
    ),
    "/v1/metrics": (
        metrics_pb.ExportMetricsServiceRequest,
        metrics_pb.ExportMetricsServiceResponse,
        "rejected_data_points",
    ),
}


class HttpCollector(Collector):
    def __init__(self, context=None):
        super().__init__()
        collector = self

        class Answering(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    import gzip

                    body = gzip.decompress(body)
                request, response, refused = _KINDS[self.path]
                answer = collector.next_answer()
                if isinstance(answer, threading.Event):
                    answer.wait(PATIENCE_S)
                    answer = None
                status, extra, said = 200, {}, response()
                if isinstance(answer, int):
                    status = answer
                elif answer and answer[0] == "retry":
                    status, extra = 429, {"Retry-After": str(answer[1])}
                elif answer and answer[0] == "partial":
                    setattr(said.partial_success, refused, answer[1])
                    said.partial_success.error_message = answer[2]
                if status == 200:
                    collector.accept(request.FromString(body), dict(self.headers))
                out = said.SerializeToString() if status == 200 else b""
                try:
                    self.send_response(status)
                    self.send_header("Content-Type", "application/x-protobuf")
                    self.send_header("Content-Length", str(len(out)))
                    for name, value in extra.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(out)
                except ConnectionError:
                    self.close_connection = True

            def log_message(self, *args):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request, address):
                pass  # a client that went away, or does not trust the certificate

        self._server = Server(("127.0.0.1", 0), Answering)
        scheme = "http"
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            scheme = "https"
        self.endpoint = f"{scheme}://localhost:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}
        )
        self._thread.start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class GrpcCollector(Collector):
    def __init__(self, credentials=None):
        super().__init__()
        self._server = grpc.server(
            ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", 4 * 2**20)]
        )
        logs_grpc.add_LogsServiceServicer_to_server(_Servicer(self, "/v1/logs"), self._server)
        metrics_grpc.add_MetricsServiceServicer_to_server(
            _Servicer(self, "/v1/metrics"), self._server
        )
        if credentials is None:
            port = self._server.add_insecure_port("localhost:0")
        else:
            port = self._server.add_secure_port("localhost:0", credentials)
        self.endpoint = f"{'https' if credentials else 'http'}://localhost:{port}"
        self._server.start()

    def close(self):
        self._server.stop(0).wait()


class _Servicer:
    def __init__(self, collector, path):
        self._collector = collector
        _, self._response, self._refused = _KINDS[path]

    def Export(self, request, context):
        answer = self._collector.next_answer()
        response = self._response()
        if isinstance(answer, threading.Event):
            answer.wait(PATIENCE_S)
        elif isinstance(answer, grpc.StatusCode):
            context.abort(answer, "as the test wants")
        elif answer and answer[0] == "retry":
            info = RetryInfo()
            info.retry_delay.FromNanoseconds(int(answer[1] * 1e9))
            context.set_trailing_metadata((("google.rpc.retryinfo-bin", info.SerializeToString()),))
            context.abort(grpc.StatusCode.UNAVAILABLE, "later")
        elif answer and answer[0] == "partial":
            setattr(response.partial_success, self._refused, answer[1])
            response.partial_success.error_message = answer[2]
        self._collector.accept(request, dict(context.invocation_metadata()))
        return response
