"""The ring buffer is read as the kernel writes it, in whatever order records are finished."""

import mmap
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linnix_plugin_ebpf.collector import LOOK_EVERY_S, LOOKS_OF_A_RING, pause_s
from linnix_plugin_ebpf.ring import Ring, ring_bytes

PAGE = mmap.PAGESIZE
BUSY, DISCARDED = 1 << 31, 1 << 30


class Producer:
    """Writes as the kernel does (kernel/bpf/ringbuf.c), into memory of the same layout.

    The kernel maps the data twice in a row; here everything is written twice.
    """

    def __init__(self, size=PAGE):
        self.descriptor = os.memfd_create("ring")
        os.ftruncate(self.descriptor, 2 * PAGE + 2 * size)
        self._memory = mmap.mmap(self.descriptor, 2 * PAGE + 2 * size)
        self._size = size
        self.ring = Ring(self.descriptor, size)

    def close(self):
        self.ring.close()
        self._memory.close()
        os.close(self.descriptor)

    def _write(self, position, content):
        for index, byte in enumerate(content):
            place = 2 * PAGE + (position + index) % self._size
            self._memory[place] = self._memory[place + self._size] = byte

    @property
    def position(self):
        return int.from_bytes(self._memory[PAGE : PAGE + 8], "little")

    @position.setter
    def position(self, value):
        self._memory[PAGE : PAGE + 8] = value.to_bytes(8, "little")

    @property
    def consumed(self):
        return int.from_bytes(self._memory[:8], "little")

    @consumed.setter
    def consumed(self, value):
        self._memory[:8] = value.to_bytes(8, "little")

    def reserve(self, length):
        """Room for a record, or None; what it gives is for `submit` and `discard`."""
        begin = self.position
        end = begin + (length + 8 + 7) // 8 * 8
        if end - self.consumed > self._size - 1:
            return None
        self._write(begin, (length | BUSY).to_bytes(4, "little"))
        self.position = end
        return begin, length

    def submit(self, room, content):
        begin, length = room
        assert len(content) == length
        self._write(begin + 8, content)
        self._write(begin, length.to_bytes(4, "little"))

    def discard(self, room):
        begin, length = room
        self._write(begin, (length | DISCARDED).to_bytes(4, "little"))

    def put(self, content):
        room = self.reserve(len(content))
        assert room is not None
        self.submit(room, content)


@pytest.fixture
def producer():
    producer = Producer()
    yield producer
    producer.close()


def read(ring, length, limit=1000, until=None):
    """Records of this length that are finished, and their room given back."""
    offsets, position = ring.next_records(limit, until)
    records = [bytes(ring.data[offset : offset + length]) for offset in offsets]
    ring.release(position)
    return records


def test_records_come_in_their_order(producer):
    for content in (b"first", b"other", b"third"):
        producer.put(content)
    assert read(producer.ring, 5) == [b"first", b"other", b"third"]
    assert read(producer.ring, 5) == []


def test_a_record_that_is_being_written_holds_back_what_comes_after_it(producer):
    producer.put(b"1")
    room = producer.reserve(1)
    producer.put(b"3")
    assert read(producer.ring, 1) == [b"1"]
    assert read(producer.ring, 1) == []
    producer.submit(room, b"2")
    assert read(producer.ring, 1) == [b"2", b"3"]


def test_a_record_that_was_discarded_is_passed_over(producer):
    producer.put(b"1")
    producer.discard(producer.reserve(100))
    producer.put(b"3")
    assert read(producer.ring, 1) == [b"1", b"3"]
    assert producer.ring.consumed == producer.ring.produced


def test_records_wait_until_they_are_released(producer):
    producer.put(b"x")
    first, position = producer.ring.next_records(10)
    again, _ = producer.ring.next_records(10)
    assert first == again
    producer.ring.release(position)
    assert producer.consumed == producer.ring.consumed == position
    assert producer.ring.next_records(10) == ([], position)


def test_no_more_than_a_limit_are_read_at_once(producer):
    for content in (b"1", b"2", b"3"):
        producer.put(content)
    assert read(producer.ring, 1, limit=2) == [b"1", b"2"]
    assert read(producer.ring, 1, limit=2) == [b"3"]


def test_reading_can_end_at_a_position(producer):
    producer.put(b"1")
    until = producer.ring.produced
    producer.put(b"2")
    assert read(producer.ring, 1, until=until) == [b"1"]
    assert read(producer.ring, 1, until=until) == []
    assert read(producer.ring, 1) == [b"2"]


def test_a_record_across_the_end_is_read_in_one_piece(producer):
    content = bytes(range(200)) * 10
    for _ in range(100):
        producer.put(content)
        assert read(producer.ring, len(content)) == [content]


def test_positions_go_on_beyond_four_gigabytes():
    producer = Producer()
    producer.position = producer.consumed = (1 << 32) - 16
    for content in (b"before", b"behind"):
        producer.put(content)
    assert read(producer.ring, 6) == [b"before", b"behind"]
    assert producer.consumed == producer.position > 1 << 32
    producer.close()


@pytest.mark.parametrize(
    ("wanted", "made"),
    [
        (1, PAGE),
        (PAGE, PAGE),
        (PAGE + 1, 2 * PAGE),
        (1 << 20, 1 << 20),
        (1_000_000, 1 << 20),
        (1 << 30, 1 << 30),
    ],
)
def test_a_ring_is_a_power_of_two_and_whole_pages(wanted, made):
    assert ring_bytes(wanted) == made


#: What producers and the consumer do: reserve so much, finish the n-th open record, read.
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), st.integers(0, 700)),
        st.tuples(st.sampled_from(["submit", "discard"]), st.integers(0, 5)),
        st.tuples(st.just("read"), st.integers(1, 4)),
    ),
    max_size=120,
)


@settings(deadline=None)
@given(STEPS, st.integers(0, 4 * PAGE).map(lambda position: position // 8 * 8))
def test_every_record_comes_out_once_and_in_order(steps, begin):
    """Several processors write at once and finish in any order, while it is read."""
    producer = Producer()
    producer.position = producer.consumed = begin
    reserved, open_records, discarded, came = [], [], set(), []

    def content(number, length):
        return (number.to_bytes(4, "little") * (length // 4 + 1))[:length]

    def finish(index, how):
        number, room = open_records.pop(index)
        if how == "submit":
            producer.submit(room, content(number, room[1]))
        else:
            producer.discard(room)
            discarded.add(number)

    def take(limit):
        offsets, position = producer.ring.next_records(limit)
        assert len(offsets) <= limit
        for offset in offsets:
            expected = [n for n in range(len(reserved)) if n not in discarded][len(came)]
            length = reserved[expected]
            assert bytes(producer.ring.data[offset : offset + length]) == content(expected, length)
            came.append(expected)
        producer.ring.release(position)

    for step, value in steps:
        if step == "reserve":
            if (room := producer.reserve(value)) is not None:
                open_records.append((len(reserved), room))
                reserved.append(value)
        elif step == "read":
            take(value)
        elif value < len(open_records):
            finish(value, step)
    while open_records:
        finish(0, "submit")
    while producer.ring.consumed < producer.ring.produced:
        take(3)
    assert came == [number for number in range(len(reserved)) if number not in discarded]
    producer.close()


@given(
    st.integers(0, 1 << 30),
    st.integers(0, 10_000).map(lambda ms: ms / 1000),
    st.integers(12, 30).map(lambda bits: 1 << bits),
)
def test_what_comes_as_fast_as_now_does_not_fill_the_ring_until_the_next_look(read, within_s, size):
    pause = pause_s(read, within_s, size)
    assert 0 <= pause <= LOOK_EVERY_S
    assert read * pause <= within_s * size / LOOKS_OF_A_RING * (1 + 1e-9) or not read
    if not read:
        assert pause == LOOK_EVERY_S
