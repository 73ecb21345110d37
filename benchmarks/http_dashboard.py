"""The process view of the dashboard with 10,000 live rows, beside a plain page of as many lines.

A headless Chromium scrolls through both by the same distance in every frame. Each row of the
view is measured once a second, and processes are born and end all the while; the lines of the
plain page are text that never changes. What counts is the CPU time of the page's main thread
for each frame; how many frames there are depends on how busy the machine is otherwise (Chromium
without a GPU draws with the CPU, and this process encodes every sample).

    python benchmarks/http_dashboard.py [--processes 10000] [--seconds 8] [--changes 200]

Needs chromium and chromedriver (Debian: chromium chromium-driver), and selenium.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.wait import WebDriverWait

from linnix_core import Batch, Context, ProcessEvent, ProcessSample, ProcessTable, Record
from linnix_core.incidents import IncidentView
from linnix_core.processes import boot_id
from linnix_plugin_http import HttpConfig, HttpHandler

TARGET_MS = 4.0

#: Pixels by which each frame scrolls: more than a row.
STEP = 37

#: How long a page may take to be there.
PATIENCE_S = 60

#: Parts of a second in which a tenth of the processes are measured.
PARTS = 10

SCROLL = f"""
const pane = document.querySelector("[role=treegrid]");
const most = pane.scrollHeight - pane.clientHeight;
let at = 0;
window.frames_ = 0;
const tick = () => {{
  window.frames_ += 1;
  pane.scrollTop = at = (at + window.step) % most;
  requestAnimationFrame(tick);
}};
window.step = {STEP};
requestAnimationFrame(tick);
"""

PLAIN = """
const pane = document.createElement("div");
pane.setAttribute("role", "treegrid");
pane.style.height = "700px";
pane.style.overflow = "auto";
for (let line = 0; line < arguments[0]; line += 1) {
  const element = document.createElement("div");
  element.textContent = `line ${line} with some words in it`;
  pane.append(element);
}
document.body.replaceChildren(pane);
"""

FLAT = """
const select = document.querySelectorAll(".bar select")[1];
select.value = "flat";
select.dispatchEvent(new Event("change"));
"""


class Host:
    """Processes that are measured once a second, of which some end and others begin."""

    def __init__(self, count: int, changes: int, folder: Path) -> None:
        self._boot = boot_id()
        self._changes = changes
        self._living = list(range(count))
        self._next = count
        self._seq = 0
        self._part = 0
        self._table = ProcessTable()
        self._stop = threading.Event()
        context = Context(
            component="handlers.http",
            logger=logging.getLogger("bench"),
            processes=self._table.view,
            incidents=IncidentView(),
            data_dir=folder,
        )
        self.handler = HttpHandler(HttpConfig(listen="127.0.0.1:0"), context)
        for number in self._living:
            self._table.update([self._born(number), self._measured(number)])

    @contextmanager
    def living(self) -> Iterator[str]:
        """The address of its dashboard, while it lives."""
        self.handler.linnix_start()
        self.handler.linnix_ready()
        feeding = threading.Thread(target=self._feed)
        feeding.start()
        try:
            yield self.handler.urls[0]
        finally:
            self._stop.set()
            feeding.join()
            self.handler.linnix_stop(time.monotonic() + 10)

    def _feed(self) -> None:
        while not self._stop.wait(1 / PARTS):
            self._part += 1
            batch: list[Record] = [
                self._measured(number) for number in self._living[self._part % PARTS :: PARTS]
            ]
            for _ in range(self._changes // PARTS // 2):
                batch.append(self._born(self._next))
                self._living.append(self._next)
                self._next += 1
                batch.append(self._ended(self._living.pop(len(self._living) // 2)))
            for record in batch:
                self._seq += 1
                record.seq = self._seq
            self._table.update(batch)
            self.handler.linnix_handle(Batch(batch))

    def _process(self, number: int) -> dict[str, Any]:
        return {
            "pid": number + 1,
            "start_ns": number * 10_000_000,
            "boot_id": self._boot,
            "comm": f"service-{number % 100}",
            "ts_ns": time.time_ns(),
        }

    def _born(self, number: int) -> ProcessEvent:
        parent = max(number // 10, 1)
        return ProcessEvent(
            "fork",
            ppid=parent,
            parent_start_ns=(parent - 1) * 10_000_000,
            uid=1000,
            gid=1000,
            args=(f"/usr/bin/service-{number % 100}", "--config", "/etc/service.conf"),
            cgroup=f"/system.slice/service-{number % 100}.service",
            **self._process(number),
        )

    def _ended(self, number: int) -> ProcessEvent:
        return ProcessEvent("exit", exit_code=0, duration_ns=10**9, **self._process(number))

    def _measured(self, number: int) -> ProcessSample:
        return ProcessSample(
            interval_ns=10**9,
            cpu_percent=(number * 7 + self._part * 13) % 97 / 3,
            rss_bytes=(number + self._part) * 4096,
            threads=4,
            fds=12,
            state="S",
            **self._process(number),
        )


@contextmanager
def chromium() -> Iterator[webdriver.Chrome]:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    assert browser
    assert driver
    options = Options()
    options.binary_location = browser
    for argument in (
        "headless=new",
        "disable-gpu",
        "disable-dev-shm-usage",
        "window-size=1280,860",
    ):
        options.add_argument(f"--{argument}")
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")
    found = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield found
    finally:
        found.quit()


def spent(driver: webdriver.Chrome) -> dict[str, float]:
    """What the main thread has done until now: CPU seconds, and frames."""
    metrics = driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    found = {each["name"]: each["value"] for each in metrics}
    return {**found, "frames": driver.execute_script("return window.frames_")}


def measured(driver: webdriver.Chrome, seconds: float) -> dict[str, Any]:
    """Scroll for so long; what a frame has cost."""
    driver.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    driver.execute_script(SCROLL)
    time.sleep(1)
    before = spent(driver)
    time.sleep(seconds)
    after = spent(driver)
    frames = max(after["frames"] - before["frames"], 1)

    def ms(name: str) -> float:
        return round((after[name] - before[name]) * 1000 / frames, 2)

    return {
        "frames_per_s": round(frames / seconds, 1),
        "main_ms_per_frame": ms("TaskDuration"),
        "script_ms": ms("ScriptDuration"),
        "style_ms": ms("RecalcStyleDuration"),
        "layout_ms": ms("LayoutDuration"),
        "main_ms_per_s": round((after["TaskDuration"] - before["TaskDuration"]) / seconds * 1000),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--changes", type=int, default=200, help="births and ends a second")
    options = parser.parse_args()
    if not (shutil.which("chromium") or shutil.which("chromium-browser")):
        print(json.dumps({"benchmark": "http_dashboard", "skipped": "chromium is not found"}))
        return
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder, chromium() as driver:
        until = WebDriverWait(driver, PATIENCE_S)
        host = Host(options.processes, options.changes, Path(folder))
        with host.living() as url:
            for name, choice in (("tree", ""), ("list by CPU", FLAT)):
                driver.get("about:blank")
                driver.get(f"{url}/#/processes")
                until.until(
                    lambda d: d.execute_script(
                        "return document.querySelectorAll('.rows .tr').length > 20"
                    )
                )
                driver.execute_script(choice)
                found[name] = measured(driver, options.seconds)
            # In the same company: what feeds the dashboard takes its time from this page too.
            driver.get("about:blank")
            driver.execute_script(PLAIN, options.processes)
            found["plain page"] = plain = measured(driver, options.seconds)
    for name, figures in found.items():
        ratio = figures["main_ms_per_frame"] / max(plain["main_ms_per_frame"], 0.01)
        line = {"benchmark": f"http_dashboard/{name}", "processes": options.processes, **figures}
        print(json.dumps({**line, "ratio": round(ratio, 2), "target_ms": TARGET_MS}))


if __name__ == "__main__":
    main()
