"""The command ``linnix``."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Sequence

from linnix_core.errors import LinnixError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code; a mistake is a sentence, not a traceback."""
    # Nearly everything that a start makes stays, imports first of all, and what is there at the
    # end is freed with the process: collections that look at it find nothing.
    gc.set_threshold(50_000)
    atexit.register(gc.freeze)
    import click

    from linnix_core.cli.group import cli

    debug = "--debug" in (sys.argv[1:] if arguments is None else arguments)
    try:
        code = cli.main(arguments, prog_name="linnix", standalone_mode=False)
        sys.stdout.flush()
    except LinnixError as error:
        if debug:
            raise
        code = _say(error)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = 130
    except OSError as error:
        if debug and not isinstance(error, BrokenPipeError):
            raise
        # Whoever read has gone away, or a disk is full: nothing is left to be said there, not
        # even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
        if not isinstance(error, BrokenPipeError):
            where = f"{error.filename}: " if error.filename else ""
            code = _say(LinnixError(f"{where}{error.strerror or error}"))
    except Exception as error:
        if debug:
            raise
        said = f"{type(error).__name__}: {error}"
        code = _say(LinnixError(said, hint="this is a bug; --debug shows where"))
    sys.exit(code if isinstance(code, int) else 0)


def _say(error: LinnixError) -> int:
    import click

    from linnix_core.escape import printable

    for line in str(error).splitlines() or [type(error).__name__]:
        click.echo(f"linnix: {printable(line)}", err=True)
    if error.hint:
        click.echo(f"  {printable(error.hint)}", err=True)
    return error.exit_code
