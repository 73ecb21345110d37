"""The live view fits into any window and leaves out the least important first."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from linnix_core import (
    Alert,
    Incident,
    Insight,
    Pressure,
    Process,
    ProcessKey,
    ProcessSample,
    Subject,
    SystemSample,
)
from linnix_plugin_console.news import News, Story
from linnix_plugin_console.view import Picture, compose

NS = 1_700_000_000_000_000_000
HOSTILE = st.text(max_size=300)


@attrs.frozen
class Status:
    component: str
    state: str = "running"
    reason: str = ""
    hint: str | None = None
    code: str = ""

    @property
    def kind(self) -> str:
        return self.component.split(".")[0]

    @property
    def name(self) -> str:
        return self.component.partition(".")[2]


def process(pid: int, comm: str = "sh", args: tuple[str, ...] = (), **sample: Any) -> Process:
    sample = {"cpu_percent": 1.0, **sample}
    return Process(
        ProcessKey("boot", pid, 0), comm=comm, args=args, sample=ProcessSample(pid, 0, 1, **sample)
    )


def incident(name: str = "i", summary: str = "trouble", **more: Any) -> Incident:
    more = {"opened_ns": NS, **more}
    return Incident(name, "high", summary, "fork_storm", id=name, **more)


def insight(why: str = "because", *actions: str) -> Insight:
    return Insight("fork_storm", 0.9, None, why, actions, incident="i")


def shown(picture: Picture, width: int = 80, height: int = 24) -> str:
    lines = compose(picture, width, height)
    return "\n".join("".join(part.text for part in line).rstrip() for line in lines)


@st.composite
def pictures(draw: Any) -> Picture:
    few = {"max_size": 4}
    return Picture(
        host=draw(HOSTILE),
        uptime_s=draw(st.floats(0, 1e9)),
        processes=draw(st.integers(0, 10**7)),
        rates={"fork": draw(st.floats(0, 1e7))},
        oom_kills=draw(st.integers(0, 3)),
        losses=draw(st.dictionaries(st.tuples(HOSTILE, HOSTILE), st.integers(1), max_size=3)),
        machine=draw(
            st.none()
            | st.builds(
                SystemSample,
                interval_ns=st.just(1),
                cpu_percent=st.none() | st.floats(0, 100),
                memory_total_bytes=st.none() | st.integers(0, 2**50),
                memory_available_bytes=st.none() | st.integers(0, 2**50),
                load1=st.none() | st.floats(0, 1e4),
                psi_io=st.none() | st.just(Pressure(1.0, 1)),
            )
        ),
        components=draw(
            st.lists(
                st.builds(
                    Status,
                    component=HOSTILE,
                    state=st.sampled_from(["running", "failed", "unavailable", "stopped"]),
                    reason=HOSTILE,
                    hint=st.none() | HOSTILE,
                ),
                **few,
            )
        ),
        busiest=draw(
            st.lists(
                st.builds(
                    process,
                    pid=st.integers(1, 4_194_304),
                    comm=HOSTILE,
                    args=st.tuples() | st.tuples(HOSTILE, HOSTILE),
                    cpu_percent=st.floats(0, 1e5),
                    rss_bytes=st.none() | st.integers(0, 2**45),
                    threads=st.none() | st.integers(1, 10**5),
                ),
                max_size=12,
            )
        ),
        stories=draw(
            st.lists(
                st.builds(
                    Story,
                    st.builds(
                        incident,
                        summary=HOSTILE,
                        change=st.sampled_from(["opened", "worse", "closed"]),
                        subject=st.builds(Subject, st.none(), comm=HOSTILE),
                    ),
                    st.none() | st.builds(insight, HOSTILE, HOSTILE),
                ),
                **few,
            )
        ),
        alerts=draw(
            st.lists(st.builds(Alert, HOSTILE, st.just("low"), HOSTILE, ts_ns=st.just(NS)), **few)
        ),
        messages=draw(st.lists(HOSTILE, **few)),
    )


@given(pictures(), st.integers(1, 250), st.integers(1, 80))
def test_whatever_there_is_to_show_never_leaves_the_window(
    picture: Picture, width: int, height: int
) -> None:
    lines = compose(picture, width, height)
    assert len(lines) <= height
    for line in lines:
        text = "".join(part.text for part in line)
        assert cell_len(text) <= width
        assert not {c for c in text if ord(c) < 32 or 127 <= ord(c) < 160}


def test_names_that_look_like_markup_or_steer_a_terminal_stay_text() -> None:
    evil = process(7, "[bold red]x", ("[bold red]x[/]", "\x1b[31m"))
    text = shown(
        Picture(
            host="[b]h",
            busiest=[evil, process(8, "[bold]")],
            stories=[Story(incident(summary="[i]\x1b[2J"), insight("[u]why", "[s]act\n"))],
        )
    )
    for part in ("[bold red]x[/] \\x1b[31m", "[bold]", "[b]h", "[i]\\x1b[2J", "[u]why", "\\x0a"):
        assert part in text


def test_an_incident_comes_with_its_reason_and_what_to_do() -> None:
    text = shown(Picture(stories=[Story(incident(), insight("a loop", "stop it", "limit it"))]))
    rows = text.splitlines()
    start = rows.index("INCIDENTS  1 open")
    assert [row[9:] for row in rows[start + 1 : start + 5]] == [
        "high     fork_storm: trouble",
        "a loop",
        "stop it",
        "limit it",
    ]


def test_an_incident_without_a_class_is_called_by_its_rules() -> None:
    text = shown(
        Picture(stories=[Story(attrs.evolve(incident(), class_=None, rules=("fd_count",)))])
    )
    assert "high     fd_count: trouble" in text


def test_a_long_reason_goes_on_below_itself() -> None:
    rows = shown(Picture(stories=[Story(incident(), insight("word " * 24))])).splitlines()
    first = next(number for number, row in enumerate(rows) if "why" in row)
    assert rows[first].startswith("     why word")
    assert rows[first + 1].startswith("         word")


def test_a_closed_incident_is_one_line_and_only_the_last_three_stay() -> None:
    closed = [Story(incident(f"c{n}", f"old {n}", change="closed"), insight()) for n in range(5)]
    text = shown(Picture(stories=closed), height=60)
    assert "INCIDENTS  5 closed" in text
    assert [f"old {n}" in text for n in range(5)] == [True, True, True, False, False]
    assert "because" not in text


def test_losses_stand_below_the_title_and_nothing_lost_is_said_too() -> None:
    losses = {("collectors.ebpf", "ring_full"): 1240}
    for height in (5, 24, 60):
        rows = shown(Picture(losses=losses), height=height).splitlines()
        assert rows[1] == "lost        1,240 in collectors.ebpf (ring_full)"
    assert "nothing lost" in shown(Picture())
    assert "nothing lost" not in shown(Picture(losses=losses))


def test_a_component_that_does_not_run_is_shown_with_its_reason_and_what_to_do() -> None:
    components = [
        Status("collectors.ebpf", "unavailable", "needs CAP_BPF", "run as root"),
        Status("collectors.psutil"),
        Status("handlers.http", "available"),
    ]
    text = shown(Picture(components=components))
    assert "collectors  ebpf unavailable   psutil running" in text
    assert "collectors.ebpf unavailable: needs CAP_BPF (run as root)" in text
    assert "collectors.psutil" not in text
    assert "handlers.http" not in text


def test_a_small_window_keeps_title_losses_incidents_and_the_busiest() -> None:
    picture = Picture(
        losses={("collectors.ebpf", "ring_full"): 1},
        busiest=[process(number, f"p{number}") for number in range(1, 9)],
        stories=[Story(incident(), insight())],
        alerts=[Alert("rule", "low", "an alert", ts_ns=NS)],
        components=[Status("handlers.http", "failed", "a bug")],
        messages=["a message"],
    )
    text = shown(picture, 40, 10)
    for part in ("0 processes", "lost 1 in", "high fork_storm: trouble", "p1", "handlers.http"):
        assert part in text
    for part in ("an alert", "a message", "p8"):
        assert part not in text


def test_what_is_measured_of_the_machine_is_shown() -> None:
    machine = SystemSample(
        1,
        cpu_percent=61.2,
        memory_total_bytes=8 << 30,
        memory_available_bytes=5 << 30,
        load1=0.0,
        psi_cpu=Pressure(3.2, 1),
        psi_io=Pressure(12.0, 1),
    )
    text = shown(Picture(machine=machine))
    assert "machine     cpu 61%   mem 3.0G/8.0G   load 0.00   stall cpu 3% io 12%" in text
    assert "machine" not in shown(Picture(machine=SystemSample(1)))


def test_kills_by_the_kernel_are_counted_once_there_are_any() -> None:
    assert "OOM" not in shown(Picture())
    assert "1 OOM kill" in shown(Picture(oom_kills=1))


@pytest.mark.parametrize(("width", "heading"), [(80, "THR"), (59, "RSS  COMMAND")])
def test_a_narrow_window_gives_up_the_threads(width: int, heading: str) -> None:
    picture = Picture(busiest=[process(1, "init", threads=77)])
    assert heading in shown(picture, width)
    assert ("77" in shown(picture, width)) == (heading == "THR")


def test_what_was_not_measured_is_a_dash_and_not_a_zero() -> None:
    assert "  1.0      -    -  sh" in shown(Picture(busiest=[process(1)]))


def test_open_incidents_stand_before_closed_ones_and_new_before_old() -> None:
    news = News()
    for name, opened, change in (("a", 1, "closed"), ("b", 2, "opened"), ("c", 3, "worse")):
        news.incident(incident(name, opened_ns=opened, change=change))
    assert [story.incident.id for story in news.stories()] == ["c", "b", "a"]


def test_an_update_keeps_the_insight_of_its_incident() -> None:
    news = News()
    news.incident(incident())
    news.insight(insight("known"))
    news.incident(incident(change="worse"))
    (story,) = news.stories()
    assert story.insight is not None
    assert story.insight.why == "known"


def test_news_are_bounded_and_closed_incidents_go_first() -> None:
    news = News()
    news.incident(incident("open"))
    for number in range(200):
        news.alert(Alert("rule", "low", f"{number}"))
        news.incident(incident(f"{number}", change="closed"))
    kept = [story.incident.id for story in news.stories()]
    assert len(kept) == 50
    assert kept[0] == "open"
    assert "199" in kept
    assert [alert.message for alert in news.alerts()] == [str(n) for n in range(199, 149, -1)]
