"""A process of its own for a model: started, asked, and ended, whatever happens in there."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from linnix_core import LinnixError, printable
from linnix_plugin_openai import NoAnswer, TooLate

__all__ = ["Child", "Idle", "NotLoaded"]

#: Seconds that a model may take to load.
LOAD_S = 300.0

#: Bytes of a reply, and of what the process says on the side.
MAX_LINE = 1 << 20
MAX_ASIDE = 4096

#: Seconds that a process may take from its last word to its end.
END_S = 2.0

#: Seconds that the process is told to be done earlier than nobody waits for it any more.
MARGIN_S = 0.5

#: Characters of a reason that are shown.
MAX_SAID = 300

#: What the process gets of the environment: where programs, libraries and processors are, and
#: no keys of other services.
_ENVIRONMENT = (
    "CUDA_", "DYLD_", "GGML_", "HIP_", "HOME", "LANG", "LC_", "LD_", "LLAMA_", "OMP_", "PATH",
    "PYTHON", "ROCR_", "TMPDIR", "VIRTUAL_ENV",
)  # fmt: skip

_HINTS = {
    "SIGILL": "llama-cpp-python was built for another processor: build it here",
    "SIGKILL": "the machine may have been short of memory: a smaller model, or a smaller context",
}


class NotLoaded(LinnixError):
    """The model cannot be loaded."""


class Idle(LinnixError):
    """The process had ended because there was nothing to do."""


def command(settings: Mapping[str, Any]) -> list[str]:
    """How the process is started."""
    # -P: nothing is imported from the folder that the agent was started in.
    return [sys.executable, "-P", "-B", "-m", f"{__package__}.worker", json.dumps(settings)]


class Child:
    """A running `linnix_plugin_llama_cpp.worker`. One thread asks; any may `end` it."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        environment = {k: v for k, v in os.environ.items() if k.startswith(_ENVIRONMENT)}
        # A debugger that llama.cpp would start on itself, and threads of a library for matrices.
        environment |= {"GGML_NO_BACKTRACE": "1", "OPENBLAS_NUM_THREADS": "1"}
        try:
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter and our module
                command(settings),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                env=environment,
                process_group=0,  # what a terminal interrupts is the agent, who ends this
            )
        except OSError as error:
            raise NoAnswer(f"the model's process cannot be started: {error.strerror}") from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        self._aside = self._process.stderr
        for pipe in (self._in, self._out, self._aside):
            os.set_blocking(pipe.fileno(), False)
        self._began = time.monotonic()
        self._ended = False
        self._bounded = settings.get("memory") is not None
        self._heard = b""
        self._said_aside = b""
        #: What the model is, as soon as it is loaded.
        self.about: dict[str, Any] | None = None

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether the process is there, and will be."""
        return self._process.poll() is None and not self._ended

    def end(self) -> None:
        """Kill the process. What is asked of it fails at once."""
        self._ended = True
        self._process.kill()

    def close(self) -> None:
        """Kill the process and wait for that; not while it is asked."""
        self.end()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_S)
        for pipe in (self._in, self._out, self._aside):
            pipe.close()

    def ask(self, request: Mapping[str, Any], ends: float) -> dict[str, Any]:
        """The reply to a request, by a moment of ``time.monotonic()``.

        A process that does not answer by then is killed, unless it is still loading. Raises
        `TooLate`, `NotLoaded`, `Idle`, and `NoAnswer` where the process ends or says nonsense.
        """
        if self.about is None:
            self._load(ends)
        left = ends - time.monotonic()
        if left <= 0:
            raise TooLate("there is no time left for the model")
        # It can stop by itself a little earlier, and keeps the model then.
        request = {**request, "seconds": left - min(MARGIN_S, left / 10)}
        try:
            return self._exchange(f"{json.dumps(request)}\n".encode(), ends)
        except TooLate:
            self.end()
            raise

    def _load(self, ends: float) -> None:
        late = self._began + LOAD_S
        try:
            said = self._exchange(b"", min(ends, late))
        except TooLate:
            if time.monotonic() >= late:
                self.end()
            raise TooLate("the model is still being loaded") from None
        if not isinstance(said.get("loaded"), dict):
            hint = "the file may be incomplete, or too new for this llama-cpp-python"
            if self._bounded:
                hint = f"it may need more than memory allows, or {hint}"
            raise NotLoaded(f"the model cannot be loaded: {_shown(said.get('failed'))}", hint=hint)
        self.about = said["loaded"]

    # --- lines ------------------------------------------------------------------------

    def _exchange(self, unsent: bytes, ends: float) -> dict[str, Any]:
        """Send that, and return the next line as the object that it should be."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._out, selectors.EVENT_READ)
            selector.register(self._aside, selectors.EVENT_READ)
            if unsent:
                selector.register(self._in, selectors.EVENT_WRITE)
            while b"\n" not in self._heard:
                left = ends - time.monotonic()
                if left <= 0:
                    raise TooLate("the model was not done in time")
                for key, _ in selector.select(left):
                    if key.fileobj is self._in:
                        unsent = unsent[self._write(unsent) :]
                        done = not unsent
                    else:
                        done = not self._hear(key.fd)
                    if done:
                        selector.unregister(key.fileobj)
                if self._out not in selector.get_map():
                    raise self._gone()
                if len(self._heard) > MAX_LINE:
                    break
        line, _, self._heard = self._heard.partition(b"\n")
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            self.end()
            raise NoAnswer(f"the model's process says nonsense: {_shown(line)}")
        return said

    def _write(self, unsent: bytes) -> int:
        try:
            return os.write(self._in.fileno(), unsent)
        except OSError:
            # It has ended, as its output will show.
            return len(unsent)

    def _hear(self, descriptor: int) -> bool:
        heard = os.read(descriptor, MAX_LINE)
        if descriptor == self._out.fileno():
            self._heard += heard
        else:
            self._said_aside = (self._said_aside + heard)[-MAX_ASIDE:]
        return bool(heard)

    def _gone(self) -> LinnixError:
        """Why the process has ended."""
        # It closes its output when it ends, and not much earlier.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_S)
        code = self._process.poll()
        if code == 0:
            return Idle("the model's process had nothing to do and has ended")
        if code is None:
            self.end()
            return NoAnswer("the model's process does not speak any more")
        if code > 0:
            said = _shown(self._said_aside) or f"exit code {code}"
            return NoAnswer(f"the model's process has failed: {said}")
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        said = _shown(self._said_aside)
        return NoAnswer(
            f"the model's process was ended by {name}" + (f": {said}" if said else ""),
            hint=_HINTS.get(name),
        )


def _shown(said: Any) -> str:
    """The last line of what a process said, for people."""
    text = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
    return printable((text.strip().splitlines() or [""])[-1], MAX_SAID)
