"""Speed: as recorded, faster, or as fast as possible, and stopping at any moment."""

import threading

import pytest


class Waits(threading.Event):
    """A stop that is never set, and a clock: waiting takes no time and is written down."""

    def __init__(self):
        super().__init__()
        self.now = 1000.0
        self.waits = []

    def wait(self, timeout=None):
        self.waits.append(round(timeout, 3))
        self.now += timeout
        return False

    def monotonic(self):
        return self.now

    def time_ns(self):
        return round(self.now * 1e9)


@pytest.fixture
def waits_for(write, play, linnix_context):
    """The seconds that playing these records waits for, one after the other."""

    def waits(records, *, before=None, **options):
        clock = Waits()
        context = linnix_context("collectors.replay", clock=clock)
        sink = play(write("recorded.jsonl", records), stop=clock, context=context, **options)
        assert [record.seq for record in sink.records] == [record.seq for record in records]
        return clock.waits

    return waits


def test_without_a_speed_nothing_is_waited_for(waits_for, event):
    assert waits_for([event(0), event(5), event(500)]) == []


def test_at_the_recorded_speed_pauses_are_those_between_the_records(waits_for, event):
    assert waits_for([event(0), event(5), event(5), event(7.5)], speed=1) == [5, 2.5]


def test_ten_times_the_speed_is_a_tenth_of_the_pauses(waits_for, event):
    assert waits_for([event(0), event(5), event(7.5)], speed=10) == [0.5, 0.25]


def test_half_the_speed_is_twice_the_pauses(waits_for, event):
    assert waits_for([event(0), event(5)], speed=0.5) == [10]


def test_records_within_a_hundredth_of_a_second_come_together(waits_for, event):
    assert waits_for([event(0), event(0.004), event(0.009), event(0.02)], speed=1) == [0.02]


def test_many_small_pauses_add_up(waits_for, event):
    waited = waits_for([event(n / 1000) for n in range(1001)], speed=1)
    assert sum(waited) == pytest.approx(1, abs=0.011)
    assert len(waited) < 101


def test_records_that_are_a_little_out_of_order_take_no_more_time(waits_for, event):
    assert waits_for([event(0), event(5), event(4), event(5.5)], speed=1) == [5, 0.5]


def test_a_clock_that_was_set_back_is_followed(waits_for, event):
    assert waits_for([event(4000), event(0), event(5)], speed=1) == [5]


def test_pauses_of_more_than_ten_minutes_are_left_out(waits_for, event):
    assert waits_for([event(0), event(600), event(1201), event(1202)], speed=1) == [600, 1]


def test_the_time_between_two_runs_is_left_out(waits_for, event):
    records = [event(0), event(60, run_id="next"), event(61, run_id="next")]
    assert waits_for(records, speed=1) == [1]


def test_what_is_late_catches_up_for_one_second_at_most(
    event, write, make_collector, linnix_context
):
    clock = Waits()

    class Slow:
        def emit_many(self, records):
            clock.now += 30  # somebody holds it up

    collector = make_collector(
        write("recorded.jsonl", [event(n) for n in range(0, 50, 5)]),
        context=linnix_context("collectors.replay", clock=clock),
        speed=1,
    )
    collector.linnix_start()
    collector.linnix_collect(Slow(), clock)
    assert clock.waits == [5] + [4] * 8


def test_a_stop_ends_a_pause_at_once(event, write, playing):
    sink, stop, ended = playing(write("recorded.jsonl", [event(0), event(590)]), speed=1)
    assert sink.first.wait(60)
    stop.set()
    assert ended()
    assert len(sink.records) == 1


def test_a_stop_ends_the_fastest_replay_between_two_blocks(event, write, make_collector):
    stop = threading.Event()
    taken = []

    class Stopping:
        def emit_many(self, records):
            taken.extend(records)
            stop.set()

    collector = make_collector(write("recorded.jsonl", [event() for _ in range(5000)]))
    collector.linnix_start()
    collector.linnix_collect(Stopping(), stop)
    assert 0 < len(taken) < 5000
