"""A real browser for the tests of the dashboard, and a real agent that can be stopped."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from http_client import PATIENCE_S, Client
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.support.wait import WebDriverWait

from linnix_core.testing.waiting import eventually

#: What the agent may use, so that it is the same wherever more is installed.
PLUGINS = ",".join(
    f"linnix-plugin-{name}" for name in ("ebpf", "heuristics", "http", "psutil", "rules")
)

#: A desktop, and the narrowest telephone.
WIDE = (1280, 860)
NARROW = (360, 740)


def programs() -> tuple[str | None, str | None]:
    """Where Chromium and its driver are; nothing is ever downloaded."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    return chromium, shutil.which("chromedriver")


@contextlib.contextmanager
def chromium() -> Iterator[webdriver.Chrome]:
    """A headless Chromium with a profile of its own."""
    browser, driver = programs()
    assert browser
    assert driver
    options = Options()
    options.binary_location = browser
    for argument in (
        "--headless=new",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-extensions",
        "--no-first-run",
        "--lang=en",
    ):
        options.add_argument(argument)
    if os.geteuid() == 0:
        # Chromium's sandbox does not work for root.
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield found
    finally:
        found.quit()


class Page:
    """The one page that is open, as the tests speak of it."""

    def __init__(self, driver: webdriver.Chrome, folder: Path) -> None:
        self.driver = driver
        self.folder = folder

    def open(self, url: str, *, size: tuple[int, int] = WIDE, dark: bool = False) -> None:
        """Open an address in a page that remembers nothing."""
        self.driver.get("about:blank")
        self.complaints()
        self.look(size, dark)
        self.driver.get(url)

    def look(self, size: tuple[int, int] = WIDE, dark: bool = False) -> None:
        """What the screen of whoever looks is like."""
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def module(self, path: str, script: str, *arguments: Any) -> Any:
        """What a function body gives that has the module as ``m`` and the arguments as ``a``."""
        return self.driver.execute_async_script(
            "const done = arguments[arguments.length - 1], a = arguments;"
            f"import({json.dumps(path)}).then((m) => {{ {script} }})"
            ".then(done, (e) => done(`${e}`));",
            *arguments,
        )

    def wait(self, script: str, *arguments: Any, why: str = "") -> Any:
        """Wait until an expression is true of the page, and return what it is."""

        def look(driver: webdriver.Chrome) -> Any:
            return driver.execute_script(f"return {script}", *arguments)

        message = f"{why or script}; the page says: {self.text()[:2000]}"
        return WebDriverWait(self.driver, PATIENCE_S, poll_frequency=0.05).until(
            look, message=message
        )

    def text(self, selector: str = "body") -> str:
        return str(
            self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector)
        )

    def says(self, words: str, selector: str = "body") -> None:
        """Wait until the page says so."""
        self.wait(
            "(document.querySelector(arguments[0])?.innerText ?? '').includes(arguments[1])",
            selector,
            words,
            why=f"{selector} does not say {words!r}",
        )

    def click(self, selector: str, label: str | None = None) -> None:
        """Click the first element that is like that, or has that label, once it is there."""
        find = (
            "[...document.querySelectorAll(arguments[0])].find((e) => arguments[1] === null || "
            "e.innerText.trim() === arguments[1])"
        )
        why = f"there is no {selector} {label or ''}"
        # What is live may be written anew between the look and the click.
        WebDriverWait(
            self.driver, PATIENCE_S, ignored_exceptions=[StaleElementReferenceException]
        ).until(lambda _: self.wait(find, selector, label, why=why).click() is None)

    def type(self, selector: str, words: str) -> None:
        element = self.wait("document.querySelector(arguments[0])", selector)
        element.clear()
        element.send_keys(words)

    def press(self, *keys: str) -> None:
        ActionChains(self.driver).send_keys(*keys).perform()

    def complaints(self) -> list[str]:
        """What the browser has complained about since the last look."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def fits(self) -> bool:
        """Whether nothing sticks out at the side."""
        return bool(self.run("return document.documentElement.scrollWidth <= innerWidth"))

    def screenshot(self, name: str) -> None:
        assert self.driver.save_screenshot(str(self.folder / f"{name}.png"))


class Agent:
    """``linnix run`` as a process, with the best collector that this machine allows."""

    def __init__(self, folder: Path, config: str) -> None:
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = Client(self.url)
        self._process: subprocess.Popen[bytes] | None = None
        kernel = os.geteuid() == 0 and find_spec("linnix_plugin_ebpf") is not None
        #: What it collects with, and what with otherwise.
        self._collectors = ["ebpf", "psutil"] if kernel else ["psutil"]
        (folder / "linnix.toml").write_text(
            f"[agent]\ndata_dir = {json.dumps(str(folder))}\n"
            f'[handlers.http]\nlisten = "127.0.0.1:{self.port}"\nrequired = true\n{config}'
        )

    def start(self) -> None:
        """Start, and wait until it serves."""
        command = [sys.executable, "-m", "linnix_core", "run"]
        command += ["--config", str(self._folder / "linnix.toml")]
        command += ["--collector", self._collectors[0]]
        if self._collectors[0] == "psutil":
            command += ["--set", "collectors.psutil.interval=500ms"]
        with (self._folder / "linnix.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env={**os.environ, "LINNIX_PLUGINS": PLUGINS},
            )
        if eventually(self._answers, said=self._said) == "refused":
            del self._collectors[0]
            self.start()

    def stop(self) -> None:
        """Stop as a person would, and wait for the end."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(PATIENCE_S)
            self._process = None

    def _answers(self) -> str:
        """Whether it serves, or may not collect in that way here; empty while it starts."""
        assert self._process is not None
        if (code := self._process.poll()) is not None:
            assert code == 3, self._said()
            assert len(self._collectors) > 1, self._said()
            return "refused"
        with contextlib.suppress(OSError, AssertionError):
            return "serves" if self.client.get("/processes?limit=1") else ""
        return ""

    def _said(self) -> str:
        return (self._folder / "linnix.log").read_text(errors="replace")[-2000:]
