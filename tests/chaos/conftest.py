"""Collects the outcome of each scenario and prints one table at the end."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.outcome import IS_FULL, Outcome, format_outcomes, save_outcomes

OUTCOMES: list[Outcome] = []
PROGRESS_EVERY_S = 5.0


@pytest.fixture
def record() -> Callable[[Outcome], None]:
    """Put one row into the table, also when the test fails on it afterwards."""
    return OUTCOMES.append


@pytest.fixture
def progress(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Print the progress of the long form every few seconds."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    started_s = time.monotonic()
    next_s = started_s + PROGRESS_EVERY_S

    def show(text: str) -> None:
        nonlocal next_s
        if IS_FULL and time.monotonic() >= next_s:
            next_s = time.monotonic() + PROGRESS_EVERY_S
            with capture.global_and_fixture_disabled():
                elapsed_s = time.monotonic() - started_s
                print(f"\n{request.node.name} {elapsed_s:.0f} s: {text}", end="", file=sys.stderr, flush=True)

    return show


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table, and save it to the path in `CHAOS_JSON`."""
    if not OUTCOMES:
        return
    terminalreporter.section("chaos" if IS_FULL else "chaos, short form")
    terminalreporter.write_line(format_outcomes(OUTCOMES, is_terminal=bool(terminalreporter.isatty)))
    if path := os.environ.get("CHAOS_JSON"):
        save_outcomes(OUTCOMES, Path(path))
