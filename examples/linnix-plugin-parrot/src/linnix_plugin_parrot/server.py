"""The server of one model: ``python -m linnix_plugin_parrot.server [--detach] FILE``.

It listens on 127.0.0.1 on a free port, prints one line of JSON that says where and who, and
answers ``POST /reason``. With ``--detach`` a process of its own goes on serving, and the
command returns as soon as the port is open.
"""

from __future__ import annotations

import json
import os
import sys
from argparse import ArgumentParser
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from .model import Model, read_model
from .processes import start_identity

MAX_QUESTION_BYTES = 1 << 20


class _Handler(BaseHTTPRequestHandler):
    timeout = 10  # for a client that connects and says nothing

    def __init__(self, model: Model, *args: Any) -> None:
        self._model = model
        super().__init__(*args)

    def do_POST(self) -> None:
        """Answer a question, or say with a status what is wrong with it."""
        if self.path != "/reason":
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_QUESTION_BYTES:
            self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return
        try:
            answer = self._model.answer(json.loads(self.rfile.read(int(length))))
        except (ValueError, TypeError, KeyError, RecursionError):
            self.send_error(HTTPStatus.BAD_REQUEST)
            return
        content = json.dumps({"digest": self._model.digest, "answer": answer}).encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is http.server's
        """Say nothing: nobody listens."""


def _announce(pid: int, server: ThreadingHTTPServer, model: Model) -> None:
    facts = {
        "pid": pid,
        "identity": start_identity(pid),
        "endpoint": f"http://127.0.0.1:{server.server_port}",
        "digest": model.digest,
    }
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def _leave_everything() -> None:
    """No terminal, no folder and no pipe of whoever started us."""
    os.setsid()
    os.chdir("/")
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    os.close(nothing)


def main(arguments: list[str] | None = None) -> None:
    """Serve until somebody ends the process."""
    parser = ArgumentParser(prog="python -m linnix_plugin_parrot.server")
    parser.add_argument("--detach", action="store_true", help="go on in the background")
    parser.add_argument("file", type=Path)
    options = parser.parse_args(arguments)
    try:
        model = read_model(options.file)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, model)) as server:
        if options.detach:
            # The parent announces the child: while it has not ended, nobody else can get
            # the pid, so the identity is certainly the child's.
            child = os.fork()
            if child:
                _announce(child, server, model)
                return
            _leave_everything()
        else:
            _announce(os.getpid(), server, model)
        server.serve_forever()


if __name__ == "__main__":
    main()
