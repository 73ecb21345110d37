"""Log lines for people: one line each, whatever a process is called."""

from __future__ import annotations

import logging
import sys
from typing import Any

from linnix_core.escape import printable

__all__ = ["configure"]


class _StderrHandler(logging.StreamHandler[Any]):
    """Writes to the ``sys.stderr`` of the moment: a live view puts its own in place."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stderr

    def format(self, record: logging.LogRecord) -> str:
        said = f"linnix: {record.levelname.lower()}: {printable(record.getMessage())}"
        if record.exc_info and record.exc_info[0] is not None:
            said += "\n" + logging.Formatter().formatException(record.exc_info)
        return said


def configure(verbose: int) -> None:
    """Show warnings, from 1 on what happens, from 2 on everything."""
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logger = logging.getLogger("linnix")
    logger.setLevel(level)
    logger.propagate = False
    if not any(isinstance(handler, _StderrHandler) for handler in logger.handlers):
        logger.addHandler(_StderrHandler())
