"""The main loop of the daemon does not depend on statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge.config import parse_config
from edge.daemon.daemon import Daemon


class FailingStatistics:
    """Statistics for which no file can be opened."""

    has_input = True
    uptime_s = 0.0

    def payload(self) -> dict[str, object]:
        raise OSError(24, "Too many open files")


class NoPublisher:
    """A publisher that counts what it gets."""

    published = 0

    @property
    def payloads(self) -> dict[str, Any]:
        return {}

    def publish_stats(self, _payload: dict[str, object]) -> None:
        self.published += 1


class Rounds:
    """A stop event, a scene, a status and a page in one: it ends the loop after some rounds."""

    def __init__(self, rounds: int) -> None:
        self.left = rounds

    def wait(self, _timeout_s: float) -> bool:
        self.left -= 1
        return self.left < 0

    def update(self) -> None:
        """Do nothing, as the scene."""

    def set_preview(self, _is_on: bool) -> None:
        """Do nothing, as the status."""

    def start(self) -> None:
        """Do nothing, as the page."""


def test_failing_statistics_are_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without file descriptors the loop goes on, round after round, and the log has one line."""
    config = parse_config(
        {"mqtt": {"stats_interval_s": 1e-9}, "outbox": {"path": str(tmp_path / "outbox.sqlite")}}
    )
    daemon, rounds = Daemon(config), Rounds(5)
    daemon._stop = rounds  # type: ignore[assignment]
    publisher = NoPublisher()
    daemon._run_clock(rounds, publisher, rounds, FailingStatistics(), rounds)  # type: ignore[arg-type]
    assert rounds.left == -1
    assert publisher.published == 0
    assert [record.getMessage() for record in caplog.records] == [
        "statistics not published: OSError: [Errno 24] Too many open files"
    ]
