"""The sample of the whole machine."""

import os
import sys
from types import SimpleNamespace

import psutil
import pytest

from linnix_core import Pressure, SystemSample, decode, encode
from linnix_plugin_psutil.system import LinuxSystemReader, SystemReader, parse_pressure

only_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads the /proc of Linux")


def system_samples(records):
    return [r for r in records if isinstance(r, SystemSample)]


def test_the_first_sample_has_amounts_and_the_second_has_rates(make_collector):
    collector = make_collector()
    records = collector.linnix_poll()
    (first,) = system_samples(records)
    assert first is records[-1]
    assert first.interval_ns == 0
    assert first.cpu_percent is None
    assert first.disk_read_bytes_per_s is None
    assert first.net_receive_bytes_per_s is None
    assert first.cpus == psutil.cpu_count()
    assert first.memory_total_bytes == psutil.virtual_memory().total
    assert 0 < first.memory_available_bytes <= first.memory_total_bytes
    assert first.swap_total_bytes == psutil.swap_memory().total
    assert 0 <= first.swap_used_bytes <= first.swap_total_bytes
    assert min(first.load1, first.load5, first.load15) >= 0
    assert first.processes == len({r.pid for r in records if r.type == "sample"})

    sum(range(2_000_000))  # some ticks of the clock of the processors
    (second,) = system_samples(collector.linnix_poll())
    assert second.interval_ns > 0
    assert second.cpu_percent is None or 0 <= second.cpu_percent <= 100
    assert decode(encode(second)) == second


def test_there_is_none_when_it_is_switched_off(make_collector):
    assert system_samples(make_collector(system=False).linnix_poll()) == []


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Counters that a test moves on, in the shapes of psutil on Linux."""
    counters = SimpleNamespace(cpu=(0.0, 0.0, 0.0, 0.0), disks={}, networks={})

    def cpu_times():
        user, idle, iowait, guest = counters.cpu
        return SimpleNamespace(
            _asdict=lambda: {"user": user, "idle": idle, "iowait": iowait, "guest": guest}
        )

    def disk_io_counters(perdisk, nowrap):
        return {
            name: SimpleNamespace(read_bytes=came, write_bytes=went)
            for name, (came, went) in counters.disks.items()
        }

    def net_io_counters(pernic, nowrap):
        return {
            name: SimpleNamespace(bytes_recv=came, bytes_sent=went)
            for name, (came, went) in counters.networks.items()
        }

    for function in cpu_times, disk_io_counters, net_io_counters:
        monkeypatch.setattr(psutil, function.__name__, function)
    counters.reader = SystemReader(sysfs=str(tmp_path))
    counters.sysfs = tmp_path
    return counters


def rates(machine, before, now, kind):
    setattr(machine, kind, before)
    machine.reader.sample(0, 10.0, 1)
    setattr(machine, kind, now)
    return machine.reader.sample(0, 12.0, 1)


@pytest.mark.parametrize(
    ("before", "now", "percent"),
    [
        ((10.0, 50.0, 0.0, 0.0), (13.0, 51.0, 0.0, 0.0), 75.0),
        ((10.0, 50.0, 0.0, 0.0), (11.0, 51.0, 2.0, 0.0), 25.0),  # waiting for a disk is idle
        ((10.0, 50.0, 0.0, 0.0), (13.0, 51.0, 0.0, 3.0), 75.0),  # guests are within user
        ((10.0, 50.0, 0.0, 0.0), (10.0, 50.0, 0.0, 0.0), None),
        ((10.0, 50.0, 0.0, 0.0), (14.0, 49.0, 0.0, 0.0), 100.0),  # idle time can run back
        ((10.0, 50.0, 0.0, 0.0), (9.0, 54.0, 0.0, 0.0), 0.0),
    ],
)
def test_cpu_is_the_share_of_all_cores_that_was_busy(machine, before, now, percent):
    sample = rates(machine, before, now, "cpu")
    assert sample.cpu_percent == percent
    assert sample.interval_ns == 2_000_000_000


def test_rates_are_bytes_per_second_of_what_was_there_both_times(machine):
    sample = rates(
        machine,
        {"sda": (100, 200), "pulled": (5, 5)},
        {"sda": (300, 1200), "plugged": (9000, 9000)},
        "disks",
    )
    assert (sample.disk_read_bytes_per_s, sample.disk_write_bytes_per_s) == (100.0, 500.0)


def test_a_counter_that_began_anew_is_not_negative(machine):
    sample = rates(machine, {"eth0": (1000, 10)}, {"eth0": (5, 30)}, "networks")
    assert (sample.net_receive_bytes_per_s, sample.net_transmit_bytes_per_s) == (0.0, 10.0)


def test_what_passes_through_a_volume_is_counted_at_the_disk(machine):
    for name in "sda", "cciss!c0d0":
        (machine.sysfs / "block" / name / "device").mkdir(parents=True)
    (machine.sysfs / "block" / "dm-0").mkdir()
    names = ("sda", "sda1", "dm-0", "loop0", "cciss/c0d0")
    sample = rates(machine, dict.fromkeys(names, (0, 0)), dict.fromkeys(names, (200, 400)), "disks")
    assert (sample.disk_read_bytes_per_s, sample.disk_write_bytes_per_s) == (200.0, 400.0)


def test_what_passes_through_a_bridge_is_counted_at_the_interface(machine):
    (machine.sysfs / "class/net/eth0/device").mkdir(parents=True)
    names = ("lo", "eth0", "docker0", "veth1")
    sample = rates(
        machine, dict.fromkeys(names, (0, 0)), dict.fromkeys(names, (200, 400)), "networks"
    )
    assert (sample.net_receive_bytes_per_s, sample.net_transmit_bytes_per_s) == (100.0, 200.0)


def test_where_no_interface_has_a_device_all_but_the_loopback_count(machine):
    names = ("lo", "lo0", "eth0", "eth1")
    sample = rates(
        machine, dict.fromkeys(names, (0, 0)), dict.fromkeys(names, (200, 400)), "networks"
    )
    assert (sample.net_receive_bytes_per_s, sample.net_transmit_bytes_per_s) == (200.0, 400.0)


@pytest.mark.parametrize(
    ("function", "fields"),
    [
        ("virtual_memory", {"memory_total_bytes", "memory_available_bytes"}),
        ("swap_memory", {"swap_total_bytes", "swap_used_bytes"}),
        ("cpu_count", {"cpus"}),
        ("cpu_times", {"cpu_percent"}),
        ("disk_io_counters", {"disk_read_bytes_per_s", "disk_write_bytes_per_s"}),
        ("net_io_counters", {"net_receive_bytes_per_s", "net_transmit_bytes_per_s"}),
    ],
)
@pytest.mark.parametrize("error", [OSError(), NotImplementedError(), ValueError(), KeyError()])
def test_what_cannot_be_read_is_none_and_the_rest_is_there(
    machine, monkeypatch, function, fields, error
):
    def fails(*args, **kwargs):
        raise error

    machine.disks, machine.networks = {"sda": (0, 0)}, {"eth0": (0, 0)}
    monkeypatch.setattr(psutil, function, fails)
    sample = rates(machine, (0.0, 0.0, 0.0, 0.0), (1.0, 1.0, 0.0, 0.0), "cpu")
    every = {
        "memory_total_bytes", "memory_available_bytes", "swap_total_bytes", "swap_used_bytes",
        "cpus", "cpu_percent", "disk_read_bytes_per_s", "disk_write_bytes_per_s",
        "net_receive_bytes_per_s", "net_transmit_bytes_per_s",
    }  # fmt: skip
    assert {name for name in every if getattr(sample, name) is None} == fields


SOME = "some avg10=1.50 avg60=0.20 avg300=0.10 total=123456\n"


def test_pressure_is_read_as_the_kernel_documents_it():
    assert parse_pressure(SOME) == Pressure(1.5, 123456)
    full = SOME + "full avg10=0.75 avg60=0.00 avg300=0.00 total=99\n"
    assert parse_pressure(full) == Pressure(1.5, 123456, 0.75, 99)


def test_pressure_that_the_kernel_does_not_tell_is_none(tmp_path):
    (tmp_path / "cpu").write_text(SOME)
    (tmp_path / "io").write_text("")
    sample = SystemReader(pressure=str(tmp_path)).sample(0, 1.0, 1)
    assert sample.psi_cpu == Pressure(1.5, 123456)
    assert (sample.psi_memory, sample.psi_io) == (None, None)


# --- straight from /proc ------------------------------------------------------------------


@pytest.fixture
def linux():
    reader = LinuxSystemReader()
    yield reader
    reader.close()


@pytest.fixture
def proc(tmp_path):
    """A /proc that a test writes, with a reader of it."""
    (tmp_path / "net").mkdir()
    reader = LinuxSystemReader(proc=str(tmp_path), sysfs=str(tmp_path / "sys"))
    yield SimpleNamespace(folder=tmp_path, reader=reader)
    reader.close()


@only_linux
def test_the_kernel_tells_what_psutil_tells(linux):
    portable = SystemReader()
    for name in "_disks", "_networks":
        before, ours, after = (getattr(reader, name)() for reader in (portable, linux, portable))
        assert before.keys() == ours.keys()
        for device, counters in ours.items():
            for least, count, most in zip(before[device], counters, after[device], strict=True):
                assert least <= count <= most
    (total, available), swap = linux._memory()
    assert total == psutil.virtual_memory().total
    assert available == pytest.approx(psutil.virtual_memory().available, rel=0.2)
    assert swap == (psutil.swap_memory().total, psutil.swap_memory().used)
    ticks = os.sysconf("SC_CLK_TCK")
    (busy, every), (busy_seconds, all_seconds) = linux._cpu(), portable._cpu()
    assert busy / ticks == pytest.approx(busy_seconds, abs=1)
    assert every / ticks == pytest.approx(all_seconds, abs=1)


@only_linux
def test_its_files_stay_open_between_samples_and_are_closed_at_the_end(linux):
    linux.sample(0, 1.0, 1)
    opened = set(os.listdir("/proc/self/fd"))
    linux.sample(0, 2.0, 1)
    assert set(os.listdir("/proc/self/fd")) == opened
    linux.close()
    assert len(os.listdir("/proc/self/fd")) < len(opened)


def test_a_file_that_is_longer_than_one_read_is_read_whole(proc):
    rows = [f"   8 {n} disk{n} 1 0 {n} 0 1 0 {2 * n} 0 0 0 0\n" for n in range(5000)]
    (proc.folder / "diskstats").write_text("".join(rows))
    counters = proc.reader._disk_counters()
    assert len(counters) == 5000
    assert counters["disk4999"] == (4999 * 512, 2 * 4999 * 512)


def test_an_interface_may_have_a_colon_in_its_name(proc):
    (proc.folder / "net" / "dev").write_text(
        "Inter-|   Receive\n face |bytes\n  eth0:1: 10 0 0 0 0 0 0 0 20 0 0 0 0 0 0 0\n"
    )
    assert proc.reader._network_counters() == {"eth0:1": (10, 20)}


def test_files_that_are_missing_or_broken_cost_their_fields_only(proc):
    (proc.folder / "meminfo").write_text("MemTotal:  100 kB\nMemAvailable: many kB\n")
    (proc.folder / "diskstats").write_text("8 0 sda\n")
    sample = proc.reader.sample(0, 1.0, 7)
    assert (sample.memory_total_bytes, sample.memory_available_bytes) == (102400, None)
    assert (sample.swap_total_bytes, sample.swap_used_bytes) == (None, None)
    assert sample.psi_cpu is None
    assert proc.reader.sample(0, 2.0, 7).disk_read_bytes_per_s is None
    assert sample.processes == 7
