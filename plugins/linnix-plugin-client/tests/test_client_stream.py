"""``linnix stream`` and whoever else reads along: nothing twice, nothing missed, nothing silent."""

import contextlib
import json
import select
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest

from linnix_core import LinnixError
from linnix_plugin_client.agent import Agent, NoAnswer
from linnix_plugin_client.events import follow

HOSTILE = "\x1b[2J\n\u202e[red]evil[/red]"
SHOWN = r"\x1b[2J\x0a\u202e[red]evil[/red]"


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    """Come back at once."""
    monkeypatch.setattr("linnix_plugin_client.events.wait", lambda seconds: time.sleep(0.02))


@pytest.fixture
def reading():
    """Follow an address in a thread: what came, what was said, and why it ended."""
    threads = []

    class Reader(threading.Thread):
        def __init__(self, url, **query):
            super().__init__(daemon=True)
            self.agent = Agent(url, timeout_s=30)
            self.query, self.records, self.said, self.error = query, [], [], None
            self.hello = threading.Event()
            self.came = threading.Condition()

        def run(self):
            try:
                for event in follow(self.agent, "/stream", self.query, say=self.said.append):
                    with self.came:
                        if event.name == "hello":
                            self.hello.set()
                        elif event.name not in ("lost", "bye"):
                            self.records.append(event.data)
                        self.came.notify_all()
            except (LinnixError, RuntimeError) as error:
                self.error = error

        def wait(self, count):
            with self.came:
                assert self.came.wait_for(lambda: len(self.records) >= count, 30), self.said

    def start(url, **query):
        reader = Reader(url, **query)
        reader.start()
        threads.append(reader)
        assert reader.hello.wait(30), reader.error
        return reader

    yield start
    for reader in threads:
        reader.agent.close()


class Proxy:
    """Passes bytes to an agent and back; ``cut`` ends every connection, ``held`` refuses more."""

    def __init__(self, agent):
        self.target = agent.url
        self.held = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._pairs = []
        self._threads[0].start()

    def _accept(self):
        with self._listener:
            while True:
                client, _ = self._listener.accept()
                if self._listener.fileno() < 0 or self.target is None:
                    client.close()
                    return
                if self.held:
                    client.close()
                    continue
                host, _, port = self.target.removeprefix("http://").partition(":")
                server = socket.create_connection((host, int(port)))
                self._pairs.append((client, server))
                self._threads.append(threading.Thread(target=self._pass, args=(client, server)))
                self._threads[-1].start()

    @staticmethod
    def _pass(client, server):
        with client, server, contextlib.suppress(OSError):
            while True:
                for source in select.select([client, server], [], [])[0]:
                    part = source.recv(65536)
                    if not part:
                        return
                    (server if source is client else client).sendall(part)

    def cut(self):
        while self._pairs:
            for each in self._pairs.pop():
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.target = None
        socket.create_connection(self._listener.getsockname()).close()
        self.cut()
        for thread in self._threads:
            thread.join(30)


@pytest.fixture
def before():
    """Stand between a client and an agent."""
    proxies = []

    def stand(agent):
        proxies.append(Proxy(agent))
        return proxies[-1]

    yield stand
    for proxy in proxies:
        proxy.close()


# --- following -----------------------------------------------------------------------------


def test_after_a_break_it_goes_on_with_the_next_record(agent, reading, before, make):
    proxy = before(agent)
    reader = reading(proxy.url)
    for number in range(1, 6):
        agent.feed(*(make.event(100 * number + n, 1) for n in range(10)))
        reader.wait(10 * number)
        proxy.cut()
    agent.feed(make.event(700, 1))
    reader.wait(51)
    assert [record["pid"] for record in reader.records] == [
        *(100 * number + n for number in range(1, 6) for n in range(10)), 700,
    ]  # fmt: skip
    numbers = [record["seq"] for record in reader.records]
    assert numbers == sorted(set(numbers))
    assert reader.said[0].endswith("; trying again until it is back")
    assert reader.said[-1] == "the agent is back"


def test_what_the_agent_no_longer_has_is_said(start_agent, reading, before, make):
    agent = start_agent(http={"history": 10})
    proxy = before(agent)
    reader = reading(proxy.url)
    agent.feed(make.event(100, 1))
    reader.wait(1)
    proxy.held = True
    proxy.cut()
    agent.feed(*(make.event(pid, 1) for pid in range(200, 300)))
    agent.until(lambda: agent.handled >= 101)
    # What comes in another batch drives them out.
    agent.feed(make.event(300, 1))
    agent.until(lambda: agent.handled >= 102)
    proxy.held = False
    agent.until(lambda: reader.records[-1]["pid"] == 300)
    (lost,) = [said for said in reader.said if "in between" in said]
    assert lost.endswith(" in between cannot be had any more: no longer in the history")


def test_an_agent_that_starts_anew_is_followed_further(start_agent, reading, before, make):
    agent = start_agent()
    proxy = before(agent)
    reader = reading(proxy.url)
    agent.feed(make.event(100, 1))
    reader.wait(1)
    proxy.held = True
    agent.agent.stop()
    agent = start_agent()
    proxy.target, proxy.held = agent.url, False
    agent.until(lambda: "the agent is back" in reader.said)
    agent.feed(make.event(200, 1))
    reader.wait(2)
    assert [record["pid"] for record in reader.records] == [100, 200]
    ended = f"the agent at {proxy.url} has ended the stream: the agent stops"
    assert reader.said == [
        f"{ended}; trying again until it is back",
        "the agent is back",
        "Records in between cannot be had any more: another run",
    ]


def test_an_agent_that_is_silent_is_asked_anew(agent, reading, monkeypatch):
    monkeypatch.setattr("linnix_plugin_client.events.SILENCE_S", 0.3)
    reader = reading(agent.url)
    agent.until(lambda: "the agent is back" in reader.said)
    silent = f"the agent at {agent.url} has been silent for 0.3 s"
    assert reader.said[0] == f"{silent}; trying again until it is back"


def test_an_agent_that_never_was_there_is_not_waited_for(free_tcp_port):
    with (
        contextlib.closing(Agent(f"127.0.0.1:{free_tcp_port}")) as agent,
        pytest.raises(NoAnswer, match="Connection refused"),
    ):
        next(follow(agent, "/stream", {}, say=print))


def test_a_refusal_ends_it(start_agent, reading):
    agent = start_agent()
    with (
        contextlib.closing(Agent(agent.url)) as asked,
        pytest.raises(LinnixError, match=r"says 400: type: 'x' is no type of record"),
    ):
        next(follow(asked, "/stream", {"type": "x"}, say=print))


# --- linnix stream -------------------------------------------------------------------------


@pytest.fixture
def ticking(agent, make):
    """A machine on which a process is started and ends, again and again."""
    ended = threading.Event()

    def tick():
        while not ended.wait(0.02):
            agent.feed(
                make.event(500, 10, "sh"),
                make.event(500, 10, HOSTILE, "exec", args=(HOSTILE, "a\tb"), cgroup="/a/b"),
                make.event(500, 10, HOSTILE, "exit", cgroup="/a/b", signal=9, cpu_ns=5 * 10**8,
                           duration_ns=2_500_000_000, max_rss_bytes=2**20),
                make.sample(11, 12.5, 2**20),
            )  # fmt: skip

    thread = threading.Thread(target=tick)
    thread.start()
    yield agent
    ended.set()
    thread.join()


def test_each_kind_of_event_has_its_line(linnix, ticking):
    lines = linnix("stream", "--url", ticking.url, "--count", "6", "--type", "event").splitlines()
    said = {line.split()[1]: line.split(maxsplit=1)[1] for line in lines}
    assert said == {
        "[FORK]": "[FORK]     PID 500      PPID 10       CMD sh -x",
        "[EXEC]": rf"[EXEC]     PID 500      PPID 10       CMD {SHOWN} a\x09b",
        "[EXIT]": f"[EXIT]     PID 500      PPID 10       CMD {SHOWN}  "
        "signal 9, after 2.5s, CPU 0.5s, RSS 1.0M",
    }


def test_samples_are_shown_where_they_are_asked_for(linnix, ticking):
    said = linnix("stream", "--url", ticking.url, "--count", "1", "--type", "sample")
    assert said[9:] == "[SAMPLE]   PID 11       CPU 12.5%   RSS 1.0M   CMD x\n"


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        (["--type", "exit"], {"exit"}),
        (["--type", "exit", "--type", "exec"], {"exit", "exec"}),
        (["--comm", "s?"], {"fork"}),
        (["--cgroup", "/a"], {"exec", "exit"}),
        (["--pid", "500", "--pid", "7"], {"fork", "exec", "exit"}),
    ],
)
def test_what_is_streamed_can_be_chosen(linnix, ticking, options, kinds):
    said = linnix("stream", "--url", ticking.url, "--json", "--count", "6", *options)
    assert {json.loads(line)["kind"] for line in said.splitlines()} == kinds


def test_every_record_of_a_run_has_a_line(linnix, agent):
    def tell():
        agent.until(lambda: httpx.get(f"{agent.url}/status").json()["subscribers"])
        agent.alert(wait=False)

    told = threading.Thread(target=tell)
    told.start()
    said = linnix("stream", "--url", agent.url, "--count", "3", "--type", "alert",
                  "--type", "incident", "--type", "insight")  # fmt: skip
    told.join()
    assert [line.split()[1] for line in said.splitlines()] == ["[HIGH]", "[INCIDENT]", "[INSIGHT]"]


# --- linnix alerts --follow ----------------------------------------------------------------


def test_alerts_are_followed_after_those_there_are_and_none_comes_twice(agent):
    agent.alert(message="one")
    agent.alert(message="two", severity="info")
    run = [sys.executable, "-m", "linnix_core", "alerts", "-f", "--json", "--severity", "low"]
    with subprocess.Popen([*run, "--url", agent.url], stdout=subprocess.PIPE, text=True) as process:
        first = json.loads(process.stdout.readline())
        for number in range(3, 6):
            agent.alert(message=f"{number}")
        rest = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.send_signal(signal.SIGINT)
        left, _ = process.communicate(timeout=30)
    assert [alert["message"] for alert in [first, *rest]] == ["one", "3", "4", "5"]
    assert (left, process.returncode) == ("", 130)
