"""One question to a server. No proxy is asked on the way, whatever the environment says."""

from __future__ import annotations

import json
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

MAX_REPLY_BYTES = 1 << 20


class NoReply(Exception):
    """Nobody answered there."""


def ask(endpoint: str, question: dict[str, Any], timeout_s: float) -> object:
    """What came back, decoded; `NoReply` if nothing did, `ValueError` if it was no JSON.

    ``timeout_s`` is shared out between the two things that are waited for: the connection
    and the reply.
    """
    address = urlsplit(endpoint)
    connection = HTTPConnection(address.hostname or "", address.port, timeout=timeout_s / 2)
    try:
        connection.request(
            "POST", "/reason", json.dumps(question), {"Content-Type": "application/json"}
        )
        response = connection.getresponse()
        content = response.read(MAX_REPLY_BYTES)
    except (OSError, HTTPException) as error:
        raise NoReply(f"{endpoint} does not answer: {error!r}") from error
    finally:
        connection.close()
    if response.status != HTTPStatus.OK:
        raise ValueError(f"{endpoint} answered with status {response.status}")
    try:
        decoded: object = json.loads(content)
    except RecursionError as error:
        raise ValueError(f"{endpoint} answered with something endless") from error
    return decoded
