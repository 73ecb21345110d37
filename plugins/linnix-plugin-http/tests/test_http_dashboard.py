"""The dashboard in a real browser, over a real agent that watches real processes."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from attrs import evolve
from http_client import Alarm, Guess, boot_id, family

from linnix_core import Feedback, Loss, Mount, ProcessEvent, hookimpl, printable
from linnix_core.testing.waiting import eventually

pytest.importorskip("selenium", reason="selenium drives the browser; it is in the group test")

from http_dashboard_browser import NARROW, WIDE, Agent, Page, chromium, programs
from selenium.webdriver.common.keys import Keys

FILES = Path(__file__).parents[1] / "src" / "linnix_plugin_http" / "dashboard"

missing = [
    name for name, found in zip(("chromium", "chromedriver"), programs(), strict=True) if not found
]
in_browser = pytest.mark.skipif(
    bool(missing),
    reason=f"{' and '.join(missing)} not found: apt install chromium chromium-driver",
)

#: A name that wants to be more than a name. The kernel keeps 15 bytes.
NAME = "<b>\x1b[2J\u202egpj"
ARGUMENT = "<img src=x onerror=alert(1)>"

#: Calls itself NAME, and uses a little CPU for ever.
TROUBLE = f"""
import ctypes, time
assert ctypes.CDLL(None).prctl(15, {NAME.encode()!r}, 0, 0, 0) == 0
print(flush=True)
while True:
    until = time.monotonic() + 0.02
    while time.monotonic() < until: pass
    time.sleep(0.04)
"""

RULES = """
- name: "odd <i>rule</i>"
  severity: high
  detector: subtree_cpu_pct
  scope: process
  threshold: 0.5
  duration: 1
  match: {args: onerror}
"""

CONFIG = """
[handlers.rules]
path = {rules}
required = true
[reasoners.heuristics]
required = true
"""


@pytest.fixture(scope="module")
def driver():
    with chromium() as found:
        yield found


@pytest.fixture
def page(driver, tmp_path):
    folder = Path(os.environ.get("LINNIX_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    yield Page(driver, folder)
    # Nothing of it reads on while the next test looks at something else.
    driver.get("about:blank")


@pytest.fixture(scope="module")
def troubled():
    """The pid of a process that has chosen its name and its arguments with care."""
    command = [sys.executable, "-c", TROUBLE, ARGUMENT, "two\nlines"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        yield process.pid
        process.kill()


@pytest.fixture(scope="module")
def agent(tmp_path_factory, troubled):
    """``linnix run`` with one rule, which the troubled process breaks.

    It sees what the kernel says where this machine lets it, else what psutil sees.
    """
    folder = tmp_path_factory.mktemp("agent")
    rules = folder / "rules.yaml"
    rules.write_text(RULES)
    found = Agent(folder, CONFIG.format(rules=json.dumps(str(rules))))
    found.start()
    yield found
    found.stop()


@pytest.fixture(scope="module")
def incident(agent):
    """The id of the incident that the troubled process is, once it has been explained."""

    def explained():
        return [each for each in agent.client.get("/incidents") if each["llm_analysis"]]

    return lambda: eventually(explained)[0]["id"]


def row(words):
    """An expression: the row of the tree in which that is said."""
    rows = "[...document.querySelectorAll('.rows .tr')]"
    return f"{rows}.find((r) => r.innerText.includes({json.dumps(words)}))"


# --- every view ---------------------------------------------------------------------------


@in_browser
def test_every_view_is_shown_in_light_and_dark_and_on_a_telephone(page, agent, incident):
    views = {
        "overview": ("", "Events and losses per second"),
        "processes": ("processes", "running"),
        "alerts": ("alerts", "odd <i>rule</i>"),
        "incidents": ("incidents", "open"),
        "incident": (f"incidents/{incident()}", "Evidence"),
        "components": ("components", "handlers.http"),
        "unknown": ("nowhere", "There is no such page."),
    }
    page.open(f"{agent.url}/")
    page.says("Live", "#link")
    for name, (path, words) in views.items():
        page.run("location.hash = `#/${arguments[0]}`", path)
        page.says(words, "main")
        page.wait("!document.querySelector('main .failure') || location.hash === '#/nowhere'")
        page.screenshot(f"{name}-light")
        page.look(WIDE, dark=True)
        page.screenshot(f"{name}-dark")
        page.look(NARROW)
        assert page.fits(), name
        page.screenshot(f"{name}-narrow")
        page.look(WIDE)
    assert page.complaints() == []


@in_browser
def test_charts_begin_with_what_was_before_the_page(page, serve):
    machine = family()[-1]
    minutes = [
        evolve(machine, ts_ns=machine.ts_ns - back * 10**9, cpu_percent=float(back % 90))
        for back in range(300, 0, -1)
    ]
    _, client = serve(minutes)
    page.open(f"{client.url}/")
    page.wait(
        "document.querySelectorAll('path.line.a')[1]?.getAttribute('d').split('L').length >= 300"
    )
    assert page.complaints() == []


@in_browser
def test_the_overview_says_how_much_happens_and_where_one_can_go(page, agent):
    page.open(f"{agent.url}/")
    page.says("in this run", ".tiles")
    page.wait("document.querySelectorAll('path.line').length === 5")
    page.wait("document.querySelector('path.line.a').getAttribute('d').includes('L')")
    page.click(".tiles a[href='#/components']")
    page.says("handlers.rules", "main")
    assert page.run("return document.querySelector('nav [aria-current]').innerText") == "Components"
    assert page.run("return document.title").startswith("Components")
    assert page.complaints() == []


# --- processes ----------------------------------------------------------------------------


@in_browser
def test_hostile_names_stay_text(page, agent, troubled, incident):
    page.open(f"{agent.url}/#/processes?pid={troubled}")
    page.wait("document.querySelector('.rows .tr.selected')", why="it is not selected")
    comm = page.run("return document.querySelector('.tr.selected .comm').textContent")
    assert comm == printable(NAME.encode()[:15].decode(errors="ignore"))
    assert page.run("return document.querySelectorAll('.tr.selected .comm .esc').length") == 2
    page.says(ARGUMENT, ".details")
    page.says(r"two\x0alines", ".details")
    page.screenshot("hostile-names")
    for path in ("alerts", "incidents", f"incidents/{incident()}"):
        page.run("location.hash = `#/${arguments[0]}`", path)
        page.says("odd <i>rule</i>" if path == "alerts" else "<b>", "main")
        assert page.run("return document.querySelectorAll('main b, main i, main img').length") == 0
        assert "\x1b" not in page.run("return document.documentElement.textContent")
        assert "\u202e" not in page.run("return document.documentElement.textContent")
    assert page.complaints() == []


@in_browser
def test_the_tree_follows_what_lives_and_greys_what_has_ended(page, agent):
    page.open(f"{agent.url}/#/processes")
    page.says("running", ".count")
    with subprocess.Popen(["sleep", "4711.25"]) as process:
        page.type("input[type=search]", "sleep 4711.25")
        page.wait(row("4711.25"), why="a process that was born is not shown")
        process.kill()
        process.wait()
    page.wait(f"{row('4711.25')}.classList.contains('ended')", why="an end is not shown")
    # Only the kernel tells how it ended.
    assert re.search("signal 9|ended", page.text(".tr.ended"))
    page.click(".check input")
    page.says("No process matches.", ".message")
    page.screenshot("no-match")
    assert page.complaints() == []


@in_browser
def test_the_tree_is_used_with_the_keyboard(page, serve):
    _, client = serve(family())
    page.open(f"{client.url}/#/processes")
    page.wait("document.querySelectorAll('.rows .tr').length === 5")
    page.run("document.querySelector('[role=treegrid]').focus()")

    def active():
        return page.run(
            "const r = document.getElementById(document.activeElement.getAttribute("
            "'aria-activedescendant')); return r && [r.querySelector('.pid').textContent, "
            "r.getAttribute('aria-level'), r.getAttribute('aria-expanded')]"
        )

    assert active() == ["1", "1", "true"]
    for key, expected in [
        (Keys.ARROW_DOWN, ["10", "2", "true"]),
        (Keys.ARROW_RIGHT, ["11", "3", None]),
        (Keys.ARROW_DOWN, ["12", "3", None]),
        (Keys.ARROW_LEFT, ["10", "2", "true"]),
        (Keys.ARROW_LEFT, ["10", "2", "false"]),
    ]:
        page.press(key)
        assert active() == expected
    assert page.run("return document.querySelectorAll('.rows .tr').length") == 2
    # Who is folded away is counted, with what they use.
    folded = page.text(".tr.selected")
    assert "+3" in folded
    assert "200.0" in folded
    page.press(Keys.ARROW_RIGHT)
    assert active() == ["10", "2", "true"]
    page.press(Keys.END)
    assert active() == ["13", "3", None]
    page.press(Keys.HOME)
    assert active() == ["1", "1", "true"]
    page.press(Keys.ENTER)
    page.says("/usr/bin/init", ".details")
    page.press(Keys.ESCAPE)
    page.wait("document.querySelector('.details').hidden")
    page.press("/")
    page.press("worker")
    page.says("2 of 5 match", ".count")
    assert page.run("return document.querySelectorAll('.tr.context').length") == 2
    page.press(Keys.ARROW_DOWN)
    assert active()[0] == "1"
    assert page.complaints() == []


@in_browser
def test_rows_have_the_colour_of_what_they_use(page, serve):
    _, client = serve(family())
    page.open(f"{client.url}/#/processes")
    page.wait(row("1.00 MiB"))

    def heat(words):
        return page.run(f"return {row(words)}.className.match(/heat-(.)/)[1]")

    assert (heat("1.00 MiB"), heat("1.00 GiB")) == ("5", "3")
    page.run(
        "const s = document.querySelector('.bar select'); s.value = 'rss';"
        "s.dispatchEvent(new Event('change'))"
    )
    assert (heat("1.00 MiB"), heat("1.00 GiB")) == ("0", "3")
    page.run(
        "const s = document.querySelectorAll('.bar select')[1]; s.value = 'flat';"
        "s.dispatchEvent(new Event('change'))"
    )
    pids = "[...document.querySelectorAll('.rows .tr .pid')].map((e) => e.textContent)"
    assert page.run(f"return {pids}.slice(0, 2)") == ["12", "11"]


@in_browser
def test_thousands_of_processes_are_a_few_rows(page, serve):
    _, client = serve(crowd(5000))
    page.open(f"{client.url}/#/processes")
    page.says("5,001 running", ".count")
    tree = "document.querySelector('[role=treegrid]')"
    assert page.run(f"return {tree}.getAttribute('aria-rowcount')") == "5002"
    assert page.run("return document.querySelectorAll('.rows .tr').length") < 100
    for share in (0.25, 0.5, 0.75, 1):
        page.run(f"{tree}.scrollTop = {tree}.scrollHeight * {share}")
        # What is in the middle of the view is a row, and there are no more than before.
        page.wait(
            f"(() => {{ const b = {tree}.getBoundingClientRect(); return document"
            ".elementFromPoint(b.left + 40, b.top + b.height / 2).closest('.rows .tr') })()"
        )
        assert page.run("return document.querySelectorAll('.rows .tr').length") < 100
    page.wait(row("5100"), why="the last one is not shown at the end")
    # Who scrolls by twelve rows has twelve rows written, and not all that are in view.
    page.run(
        f"const tree = {tree}; tree.scrollTop = 50_000;"
        "requestAnimationFrame(() => requestAnimationFrame(() => {"
        "window.written = 0; new MutationObserver((all) => (window.written += all.length))"
        ".observe(tree, {subtree: true, attributeFilter: ['aria-rowindex']});"
        "tree.scrollTop += 12 * tree.querySelector('.rows .tr').offsetHeight; }))"
    )
    assert page.wait("window.written") == 12
    # Whoever has it read out hears them in the order in which they are seen.
    order = "[...document.querySelectorAll('.rows .tr')].map((e) => Number(e.ariaRowIndex))"
    page.wait(f"{order}.every((each, at, all) => !at || each === all[at - 1] + 1)")
    page.screenshot("five-thousand")
    page.type("input[type=search]", "w4321")
    page.says("1 of 5,001 match", ".count")
    assert page.complaints() == []


@in_browser
@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_names_and_arguments_keep_to_their_column(page, serve, size):
    texts = ["x" * length for length in range(10, 200, 5)] + ["\u5bbd" * 60, "\x1b" * 40]
    parent, *_ = family()
    crowd = [
        evolve(parent, kind="fork", pid=100 + n, start_ns=10**9 + n, ppid=1, args=("a", each))
        for n, each in enumerate(texts)
    ]
    _, client = serve([parent, *crowd])
    page.open(f"{client.url}/#/processes", size=size)
    page.wait("document.querySelectorAll('.rows .tr').length > 30")
    sticking_out = page.run(
        "return [...document.querySelectorAll('.rows .td.name')].filter((e) =>"
        "e.scrollWidth > e.clientWidth && getComputedStyle(e).overflowX !== 'hidden').length"
    )
    assert sticking_out == 0
    assert page.run("return document.querySelectorAll('.rows .long').length") > 5
    if size == WIDE:
        assert page.run("return document.querySelectorAll('.rows .tr:not(.long)').length") > 5


@in_browser
def test_a_moment_in_the_past_can_be_looked_at(page, serve):
    _, client = serve(family())
    page.open(f"{client.url}/#/processes?at=1000000000")
    page.says("As it was at 2001-09-09", ".note")
    page.says("Not everybody may be here: it was before this run", ".note")
    page.says("No process is known.", ".message")
    page.click(".note a", "Back to now")
    page.says("5 running", ".count")


# --- what was found -----------------------------------------------------------------------


@in_browser
def test_an_incident_has_its_evidence_and_takes_an_opinion(page, agent, incident, troubled):
    number = incident()
    page.open(f"{agent.url}/#/incidents")
    page.click("main table a")
    page.wait("location.hash.endsWith(arguments[0])", number)
    page.says("by heuristics", ".insight")
    page.says("threshold", "[aria-label=Evidence]")
    page.wait("document.querySelector('tr.subject')", why="the process is not marked")
    assert str(troubled) in page.text("tr.subject")
    page.says("Came from", "main")
    page.type("[name=note]", "a <test>")
    page.click(".panel button", "Noise")
    page.says("Said last: noise.", "main")
    assert page.text("button[aria-pressed=true]") == "Noise"
    assert agent.client.get(f"/incidents/{number}")["feedback"] == "noise"
    page.click(".panel button", "Explain again")
    page.says("Queued", "main")
    page.run("location.hash = '#/incidents/nosuch'")
    page.says("no such incident", ".failure")


@in_browser
def test_feedback_of_others_is_shown_at_once(page, serve):
    agent, client = serve(family(), handlers={"alarm": Alarm}, reasoners={"guess": Guess})
    (known,) = client.get("/incidents")
    page.open(f"{client.url}/#/incidents/{known['id']}")
    page.says("Nobody has said anything yet.", "main")
    agent.feedback(Feedback(known["id"], "useful"))
    page.says("Said last: useful.", "main")
    page.run("location.hash = '#/alerts'")
    page.says("worker (pid 11) uses 150 % of a core", "main")
    page.wait("document.querySelectorAll('rect.mark-high').length === 1")
    page.click("main td a", "Open")
    page.wait("location.hash.includes('/incidents/')")
    assert page.complaints() == []


@in_browser
def test_losses_are_where_one_looks_first(page, serve):
    lost = Loss("collectors.x", "ring_full", 310, 310, 10**10, ts_ns=family()[1].ts_ns)
    _, client = serve([*family(), lost])
    page.open(f"{client.url}/")
    page.says("310", ".tile.bad")
    page.says("ring_full", "main")
    page.click(".tile.bad")
    page.says("collectors.x", "[aria-label='Latest losses']")
    assert page.complaints() == []


class Offering:
    """Offers something that is not for pages, and something that is."""

    @hookimpl
    def linnix_handle(self, batch):
        return None

    @hookimpl
    def linnix_http(self):
        async def app(scope, receive, send):
            headers = [(b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            body = json.dumps({"asked": scope["query_string"].decode(), "bad": "<b>\x1b"}).encode()
            await send({"type": "http.response.body", "body": body})

        return [Mount("/quiet", app), Mount("/offer", app, "An offer <b>")]


@in_browser
def test_pages_of_other_plugins_are_in_the_navigation(page, serve):
    _, client = serve(handlers={"offering": Offering})
    page.open(f"{client.url}/")
    page.click("nav a", "An offer <b>")
    page.says('"bad": "<b>', "main pre")
    page.type("main input", "a=1")
    page.click("main button", "Ask")
    page.says('"asked": "a=1"', "main pre")
    assert "quiet" not in page.text("nav")
    assert page.run("return document.querySelectorAll('main b, nav b').length") == 0
    page.run("location.hash = '#/offered//example.org/x'")
    page.says("That is not on this agent.", "main")
    assert page.complaints() == []


# --- the connection -----------------------------------------------------------------------


@in_browser
def test_a_token_is_asked_for_and_kept_in_the_tab_only(page, serve):
    tokens = [
        {"sha256": hashlib.sha256(word.encode()).hexdigest(), "scope": scope}
        for word, scope in (("secret", "act"), ("looker", "read"))
    ]
    parts = {"handlers": {"alarm": Alarm}, "http": {"tokens": tokens}}
    _, client = serve(family(), **parts)
    page.open(f"{client.url}/")
    page.says("This agent asks for a token", "dialog")
    page.screenshot("token")
    page.look(NARROW)
    assert page.fits()
    page.screenshot("token-narrow")
    page.look(WIDE)
    page.press(Keys.ESCAPE)
    page.says("Token needed", "#link")
    page.click("#notice button", "Enter token")
    page.type("dialog input", "wrong")
    page.press(Keys.ENTER)
    page.says("That token is not known to the agent.", "dialog")
    # No header can hold it, so nobody could be asked whether it is known.
    page.type("dialog input", "ключ")
    page.press(Keys.ENTER)
    page.wait("document.querySelector('dialog input:invalid')")
    page.type("dialog input", "looker")
    page.press(Keys.ENTER)
    page.says("Live", "#link")
    page.wait("!document.querySelector('dialog')")
    kept = page.run(
        "return [Object.values(sessionStorage), Object.keys(localStorage), document.cookie]"
    )
    assert kept == [["looker"], [], ""]
    # Who may only look is told so when they say something.
    page.run("location.hash = '#/incidents'")
    page.click("main table a")
    page.click(".panel button", "Useful")
    page.says("this needs a token with the scope act", "main")
    page.run("sessionStorage.clear()")
    # The browser itself notes every answer that is no 2xx; there is nothing else.
    assert all("status of 40" in each for each in page.complaints())


@in_browser
def test_the_page_says_when_the_agent_stops_and_comes_back_with_it(page, agent):
    page.open(f"{agent.url}/#/processes")
    page.says("running", ".count")
    before = agent.client.get("/status")["run_id"]
    agent.stop()
    page.says("Agent stopped", "#link")
    page.says("The agent has said good-bye", "#notice")
    page.screenshot("agent-stopped")
    # What was known stays to be read.
    assert page.run("return document.querySelectorAll('.rows .tr').length") > 0
    agent.start()
    assert agent.client.get("/status")["run_id"] != before
    page.says("Live", "#link")
    page.wait("document.getElementById('notice').hidden")
    with subprocess.Popen(["sleep", "4712.5"]) as process:
        page.type("input[type=search]", "4712.5")
        page.wait(row("4712.5"), why="the new run is not followed")
        process.kill()
    assert all("ERR_CONNECTION" in e or "ERR_INCOMPLETE" in e for e in page.complaints())


# --- the parts ----------------------------------------------------------------------------


@in_browser
def test_text_is_escaped_exactly_as_everywhere_in_linnix(page, serve):
    _, client = serve()
    page.open(f"{client.url}/")
    points = [*range(0xD800), *range(0xE000, 0x1_2000), *range(0x1_3000, 0x1_E000)]
    points += range(0xE_0000, 0xE_1001)
    words = "".join(map(chr, points))
    shown = page.module("/assets/text.js", "return m.printable(a[0])", words)
    assert shown == printable(words)


@in_browser
def test_events_are_read_wherever_the_network_cuts_them(page, serve):
    _, client = serve()
    page.open(f"{client.url}/")
    sent = 'retry: 1\nevent: hello\ndata: {"a":1}\n\n: keep-alive\n\nid: 7\nevent: x\ndata: {}\n\n'
    script = (
        "const all = []; for (let cut = 0; cut <= a[0].length; cut += 1) {"
        "const p = new m.Parser(), parts = [a[0].slice(0, cut), a[0].slice(cut)];"
        "all.push(JSON.stringify(parts.flatMap((part) => p.push(part)))); }"
        "return [...new Set(all)]"
    )
    (found,) = page.module("/assets/parser.js", script, sent)
    assert json.loads(found) == [
        {"event": "hello", "data": ' {"a":1}'},
        {"event": "x", "data": " {}"},
    ]


@in_browser
def test_the_page_asks_beside_itself(page, serve):
    _, client = serve()
    page.open(f"{client.url}/")
    # As behind a proxy that serves it below a path of its own.
    script = "history.replaceState(null, '', a[0]); return m.address(a[1])"
    for path, asked in (("/", "/x?y=1"), ("/dashboard#/z", "/x?y=1"), ("/below/", "/below/x?y=1")):
        found = page.module(f"{client.url}/assets/api.js", script, path, "/x?y=1")
        assert found == client.url + asked, path
    assert not re.search(r"(?:href|src)=[\"']/", (FILES / "index.html").read_text())


def test_the_files_need_nobody_else_and_nothing_that_the_policy_forbids():
    names = [path for path in FILES.rglob("*") if path.suffix in (".js", ".html", ".css", ".svg")]
    assert len(names) > 10
    for path in names:
        source = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|//cdn|@import|\burl\(['\"]?(?!data:|/)[a-z]+:", source), (
            path
        )
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", source)
        assert not re.search(r"localStorage|document\.cookie|<style|\sstyle=|\son\w+=\"", source)
        assert "createContextualFragment" not in source, path


def crowd(size):
    """init, and so many below it, a hundred each below one of their own."""
    boot = boot_id()
    now = family()[1].ts_ns

    def event(pid, ppid, comm):
        return ProcessEvent(
            "seen",
            pid=pid,
            start_ns=pid * 10_000_000,
            ppid=ppid,
            parent_start_ns=None if ppid is None else ppid * 10_000_000,
            comm=comm,
            ts_ns=now,
            boot_id=boot,
        )

    below = [
        event(pid, 1 if pid % 100 == 1 else pid - (pid - 1) % 100, f"w{pid}")
        for pid in range(101, size + 101)
    ]
    return [event(1, None, "init"), *below]
