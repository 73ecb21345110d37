"""How /proc is read: lines of any content, half lines, no lines."""

import os
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linnix_plugin_psutil.linux import LinuxReader, cgroup_path, parse_stat
from linnix_plugin_psutil.reading import READ_ERRORS, Reading

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")

# As Linux 6 writes it, with a name of two bytes that look like the end of the name.
STAT = (
    b"4893 ()) R 4890 4890 2634 0 -1 4194304 833 0 0 0 150 50 0 0 20 0 3 0 203308 12816384 2162"
    b" 18446744073709551615 94868221870080 94868221870421 140735400165728 0 0 0 0 16781312 2 0 0 0"
    b" 17 0 0 0 0 0 0 94868221881776 94868221882392 94868602994688 140735400167846"
    b" 140735400168161 140735400168161 140735400169442 0\n"
)


def test_every_field_is_taken_from_its_place():
    reading = parse_stat(4893, STAT)
    assert (reading.pid, reading.ppid, reading.comm, reading.state) == (4893, 4890, ")", "R")
    assert reading.start_ns == 203308 * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    assert reading.cpu_ns == 200 * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    assert reading.rss_bytes == 2162 * os.sysconf("SC_PAGE_SIZE")
    assert reading.threads == 3
    assert reading.stack == 140735400165728
    assert (reading.execed, reading.kernel) == (True, False)


@pytest.mark.parametrize(
    ("flags", "execed", "kernel"),
    [(0x0040_0040, False, False), (0x0040_0100, True, False), (0x0020_8040, False, True)],
)
def test_the_flags_tell_of_execs_and_kernel_threads(flags, execed, kernel):
    reading = parse_stat(1, STAT.replace(b" 4194304 ", b" %d " % flags))
    assert (reading.execed, reading.kernel) == (execed, kernel)


@settings(deadline=None)
@given(st.binary(max_size=64).filter(lambda name: b"\0" not in name))
def test_no_name_can_move_the_fields(name):
    reading = parse_stat(4893, STAT.replace(b"()) ", b"(" + name + b") "))
    assert reading.comm == name.decode("utf-8", "backslashreplace")
    assert (reading.ppid, reading.state, reading.threads) == (4890, "R", 3)
    reading.comm.encode()


@settings(deadline=None)
@given(st.integers(0, len(STAT)))
def test_half_a_line_is_an_error_that_is_expected_or_the_same_process(length):
    try:
        reading = parse_stat(4893, STAT[:length])
    except READ_ERRORS:
        return
    assert reading.start_ns == parse_stat(4893, STAT).start_ns


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("0::/user.slice/job.scope\n", "/user.slice/job.scope"),
        ("0::/\n", "/"),
        ("3:cpu,cpuacct:/a\n2:memory:/a/b\n0::/system.slice\n", "/system.slice"),
        ("3:cpu,cpuacct:/a\n2:memory:/a/b\n0::/\n", "/a/b"),
        ("2:memory:/docker/1\n1:name=systemd:/\n", "/docker/1"),
        ("2:memory:/\n1:cpu:/\n0::/\n", "/"),
        ("0::/a:b\u2028c\x0bd\n", "/a:b\u2028c\x0bd"),
        ("", None),
        ("nonsense\n", None),
    ],
)
def test_the_cgroup_is_the_one_that_says_most(text, path):
    assert cgroup_path(text) == path


def test_files_that_cannot_be_read_leave_their_fields_unknown(tmp_path):
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").write_bytes(STAT)
    reader = LinuxReader(str(tmp_path))
    assert list(reader.pids()) == [7]
    image = reader.describe(reader.read(7))
    assert (image.exe, image.args, image.uid, image.gid) == (None, None, None, None)
    assert (image.cwd, image.cgroup, image.truncated) == (None, None, False)


def test_arguments_are_taken_as_they_are(tmp_path):
    folder = tmp_path / "7"
    folder.mkdir()
    reader = LinuxReader(str(tmp_path))
    for raw, args in {
        b"sh\0-c\0a b\0": ("sh", "-c", "a b"),
        b"nginx: worker process": ("nginx: worker process",),
        b"one\0\0": ("one", ""),
        b"caf\xe9\0": ("caf\\xe9",),
        b"": (),
    }.items():
        (folder / "cmdline").write_bytes(raw)
        assert reader.describe(Reading(7, 0)).args == args


def test_a_process_that_is_not_there_is_none(tmp_path):
    assert LinuxReader(str(tmp_path)).read(7) is None
    assert LinuxReader().read(2**22 + 1) is None
