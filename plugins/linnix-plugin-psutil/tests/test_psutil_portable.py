"""psutil refuses a field, fails in odd ways, and finds another process behind a pid."""

import os

import psutil
import pytest

from linnix_core import ProcessEvent, ProcessSample
from linnix_plugin_psutil.portable import PortableReader

ERRORS = [
    psutil.AccessDenied(1),
    psutil.NoSuchProcess(1),
    psutil.ZombieProcess(1),
    OSError(22, "Invalid argument"),
    ValueError("not enough values"),
    IndexError("list index out of range"),
    RuntimeError("file was empty"),
]
FIELDS = {
    "cpu_times": {"cpu_percent"},
    "memory_info": {"rss_bytes"},
    "num_threads": {"threads"},
    "status": {"state"},
    "io_counters": {"read_bytes", "write_bytes"},
    "num_fds": {"fds"},
}
IMAGE = {"exe": {"exe"}, "cmdline": {"args"}, "uids": {"uid"}, "gids": {"gid"}, "cwd": {"cwd"}}


def refuse(monkeypatch, method, error):
    # What psutil remembers within `oneshot` has to fail where it comes from.
    remembered = method in {"cpu_times", "memory_info", "uids"}
    owner = psutil._psplatform.Process if remembered else psutil.Process
    monkeypatch.setattr(owner, method, failing(error))


def failing(error):
    def method(process):
        raise error

    return method


def own(records, cls):
    (record,) = [r for r in records if isinstance(r, cls) and r.pid == os.getpid()]
    return record


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("method", FIELDS)
def test_a_measure_that_is_refused_is_none_and_the_rest_is_there(
    make_collector, monkeypatch, method, error
):
    if not hasattr(psutil.Process, method):
        pytest.skip("psutil has none of this here")
    collector = make_collector(PortableReader(), fds=True)
    collector.linnix_poll()
    refuse(monkeypatch, method, error)
    sample = own(collector.linnix_poll(), ProcessSample)
    measures = set().union(*FIELDS.values())
    assert {name for name in measures if getattr(sample, name) is None} == FIELDS[method]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("method", IMAGE)
def test_a_name_that_is_refused_is_none_and_the_rest_is_there(
    make_collector, monkeypatch, method, error
):
    refuse(monkeypatch, method, error)
    seen = own(make_collector(PortableReader()).linnix_poll(), ProcessEvent)
    names = set().union(*IMAGE.values())
    assert {name for name in names if getattr(seen, name) is None} == IMAGE[method]
    assert seen.comm


@pytest.mark.parametrize("error", [psutil.AccessDenied(1), psutil.ZombieProcess(1), OSError(22)])
def test_one_whose_start_cannot_be_read_is_left_out_and_counted(make_collector, monkeypatch, error):
    monkeypatch.setattr(psutil.Process, "create_time", failing(error))
    collector = make_collector(PortableReader(), system=False)
    assert collector.linnix_poll() == []
    assert any("could not be read" in limit for limit in collector.linnix_health().limits)


def test_another_process_behind_the_same_pid_gets_another_start(monkeypatch):
    reader = PortableReader()
    pid = os.getpid()
    reader.pids()
    start_ns = reader.read(pid).start_ns
    # psutil tells processes apart by a start time of its own, which cannot be had otherwise.
    monkeypatch.setattr(psutil.Process, "_get_ident", lambda process: (process.pid, 1e9))
    created = psutil.Process(pid).create_time()
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: created + 5)
    assert reader.read(pid).start_ns == start_ns + 5_000_000_000


def test_processes_that_went_are_forgotten(monkeypatch):
    reader = PortableReader()
    reader.pids()
    reader.read(os.getpid())
    assert reader.io_bytes(os.getpid()) is None or reader.descriptors(os.getpid())
    monkeypatch.setattr(psutil, "pids", list)
    reader.pids()
    with pytest.raises(LookupError):
        reader.descriptors(os.getpid())


def test_a_system_that_does_not_count_the_io_of_processes_says_so(make_collector, monkeypatch):
    monkeypatch.delattr(psutil.Process, "io_counters", raising=False)
    collector = make_collector(PortableReader())
    collector.linnix_poll()
    assert own(collector.linnix_poll(), ProcessSample).read_bytes is None
    assert "this system does not tell the I/O of a process" in collector.linnix_health().limits
    without = make_collector(PortableReader(), io=False)
    assert "this system does not tell the I/O of a process" not in without.linnix_health().limits
