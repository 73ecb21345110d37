"""For every test of the repository: in CI, what is skipped has failed.

Tests that need root or a Debian package skip where those are missing and say so. CI has
them, so a skip there means that a test silently stopped testing.
"""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

# Generating takes longer where others compute on the same cores, which is no fault of a test.
settings.register_profile("linnix", suppress_health_check=[HealthCheck.too_slow], deadline=None)
settings.load_profile("linnix")

# Whoever is run by nohup or in the background of a script ignores these, and so would every
# process that a test starts and sends them to.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

_skipped: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember what was skipped; an expected failure is none."""
    if report.skipped and not hasattr(report, "wasxfail"):
        _remember(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Remember a file that was skipped as a whole, whose tests nobody has heard of."""
    if report.skipped:
        _remember(report)


def _remember(report: pytest.TestReport | pytest.CollectReport) -> None:
    why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    _skipped.append(f"{report.nodeid}: {why}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run in CI that skipped anything."""
    if os.environ.get("CI") == "true" and _skipped and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say why."""
    if os.environ.get("CI") == "true":
        for skipped in _skipped:
            terminalreporter.write_line(
                f"skipped in CI, which counts as failed: {skipped}", red=True
            )
