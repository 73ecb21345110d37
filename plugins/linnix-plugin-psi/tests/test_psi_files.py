"""What the kernel writes into the files of a group is read as it is meant."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linnix_core import CgroupSample, Pressure
from linnix_plugin_psi.files import fill_pressure, parse_limit, parse_pairs, parse_pressure

percent = st.integers(0, 10_000).map(lambda hundredths: hundredths / 100)
count = st.integers(0, 2**64 - 1)
word = st.from_regex(r"\A[a-z_.]{1,20}\Z")


def line(who, avg10, total):
    return f"{who} avg10={avg10:.2f} avg60=12.34 avg300=0.00 total={total}\n"


@given(percent, count, percent, count)
def test_pressure_is_read_as_the_kernel_prints_it(some, total, full, full_total):
    text = line("some", some, total) + line("full", full, full_total)
    assert parse_pressure(text.encode()) == Pressure(some, total, full, full_total)


@given(percent, count)
def test_pressure_of_cpus_had_no_full_before_linux_5_13(some, total):
    text = line("some", some, total)
    assert parse_pressure(text.encode()) == Pressure(some, total, None, None)


@given(st.binary(max_size=100))
def test_what_is_no_pressure_is_refused_and_never_half_read(raw):
    with pytest.raises(ValueError, match="no pressure"):
        parse_pressure(raw.replace(b"some", b""))


@given(st.dictionaries(word, count, max_size=20))
def test_pairs_are_read_in_their_order(pairs):
    text = "".join(f"{name} {value}\n" for name, value in pairs.items())
    assert list(parse_pairs(text.encode()).items()) == list(pairs.items())


@pytest.mark.parametrize("raw", [b"oom", b"oom many\n", b"oom 1 oom_kill\n", b"caf\xc3\xa9 1\n"])
def test_pairs_that_are_none_are_refused(raw):
    with pytest.raises(ValueError):  # noqa: PT011 - from int, zip or decode, as it comes
        parse_pairs(raw)


@given(st.integers(0, 2**50))
def test_a_limit_is_its_bytes(size):
    assert parse_limit(b"%d\n" % size) == size


@pytest.mark.parametrize("page", [4096, 16_384, 65_536])
def test_the_largest_number_of_whole_pages_is_no_limit(page):
    assert parse_limit(b"%d\n" % ((2**63 - 1) // page * page)) is None
    assert parse_limit(b"max\n") is None


def test_pressure_that_is_half_there_is_known_as_far_as_it_is(tmp_path):
    (tmp_path / "cpu.pressure").write_text(line("some", 1.0, 2))
    (tmp_path / "memory.pressure").write_text("nonsense")
    sample = CgroupSample("/", 0)
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        fill_pressure(sample, folder, ".pressure")
    finally:
        os.close(folder)
    assert sample.psi_cpu == Pressure(1.0, 2)
    assert (sample.psi_memory, sample.psi_io) == (None, None)
