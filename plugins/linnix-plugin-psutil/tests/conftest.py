"""Collectors with either reader, and real children."""

import subprocess
import sys

import pytest

from linnix_plugin_psutil import PsutilCollector, PsutilConfig
from linnix_plugin_psutil.linux import LinuxReader
from linnix_plugin_psutil.portable import PortableReader

READERS = {"linux": LinuxReader, "portable": PortableReader}


@pytest.fixture(params=["linux", "portable"])
def make_reader(request):
    """The class of each reader that works on this system."""
    if request.param == "linux" and sys.platform != "linux":
        pytest.skip("needs /proc")
    return READERS[request.param]


@pytest.fixture
def make_collector(linnix_context):
    def make(reader=None, clock=None, **options):
        parts = {} if clock is None else {"clock": clock}
        context = linnix_context("collectors.psutil", **parts)
        return PsutilCollector(PsutilConfig(**options), context, reader=reader)

    return make


@pytest.fixture
def start():
    """Start a command that says a line when it is ready; it is gone after the test."""
    children = []

    def start(*command, ready=True, **options):
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, **options
        )
        children.append(child)
        if ready:
            assert child.stdout.readline()
        return child

    yield start
    for child in children:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()


@pytest.fixture
def start_python(start):
    """Start a script in a fresh interpreter, without the site's packages: it starts faster."""
    return lambda script, *args, **options: start(
        sys.executable, "-I", "-S", "-c", script, *args, **options
    )
