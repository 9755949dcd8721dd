"""The short form of `make soak`."""

from __future__ import annotations

from pathlib import Path

from tests.system.soak import soak


def test_nothing_is_lost_while_devices_and_broker_fail(tmp_path: Path) -> None:
    """A third of a minute at twenty times the speed: files, microphone and broker vanish and come back."""
    result = soak(1 / 3, seed=3, directory=tmp_path)
    assert result.events >= 5  # how many depends on the speed of the machine
    assert (result.lost, result.out_of_order, result.exit_code) == (0, 0, 0)
    assert sum(result.failures.values()) >= 2
    # Too short to measure memory; a file or thread left behind by a failure shows.
    assert result.files[1] - result.files[0] <= 2
    assert result.threads[1] - result.threads[0] <= 2
