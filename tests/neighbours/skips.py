"""Skips are seen: one line of the summary counts them with their reasons; ARKA_TEST_NO_SKIPS=1 makes them failures."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator
from typing import Any

import pytest
from _pytest.terminal import TerminalReporter

VARIABLE = "ARKA_TEST_NO_SKIPS"


def are_forbidden() -> bool:
    return os.environ.get(VARIABLE) == "1"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    # An expected failure is reported as skipped too, but it did run.
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and are_forbidden():
        _make_failure(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.skipped and are_forbidden():
        _make_failure(report)
    return report


def _make_failure(report: pytest.TestReport | pytest.CollectReport) -> None:
    report.longrepr = f"{report.nodeid}: skipped, which {VARIABLE} forbids: {reason_of(report)}"
    report.outcome = "failed"


def reason_of(report: Any) -> str:
    """Return why a test was skipped, without pytest's own word before it."""
    where = report.longrepr
    text = where[2] if isinstance(where, tuple) else str(where)
    return text.removeprefix("Skipped: ")


def summary(reports: list[Any]) -> str:
    """Return the line that says how many tests were skipped and why."""
    reasons = Counter(reason_of(report) for report in reports)
    if not reasons:
        return "No test was skipped."
    told = "; ".join(f"{count}: {reason}" for reason, count in reasons.most_common())
    return f"Skipped {sum(reasons.values())} in all. {told}"


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    terminalreporter.write_line(summary(terminalreporter.stats.get("skipped", [])))
