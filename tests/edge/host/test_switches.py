"""The switches: which commands they accept, and what survives a restart."""

from __future__ import annotations

import errno
import json
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edge import files
from edge.health import Health
from edge.host.switches import Switches, read_switches
from tests.helpers.brokers import wait_until

Applied = list[tuple[str, bool]]


@contextmanager
def switching(
    path: Path, *, parts: tuple[str, ...] = ("camera", "microphone"), health: Health | None = None
) -> Iterator[tuple[Switches, Applied]]:
    """Run switches during the block; yield them and the commands that they carried out."""
    applied: Applied = []
    switches = Switches(path, parts=parts, health=health or Health(), settle_s=0.01)
    switches.start(lambda part, is_on: applied.append((part, is_on)))
    try:
        yield switches, applied
    finally:
        switches.close()


def test_off_survives_a_restart(tmp_path: Path) -> None:
    """All parts are on at first; one that is switched off stays off over restarts until it is switched on."""
    path = tmp_path / "state" / "switches.json"
    with switching(path) as (switches, applied):
        assert switches.is_on("camera")
        switches.command("camera", b"OFF", False)
        wait_until(lambda: applied == [("camera", False)], "the camera to be off")
    with switching(path) as (switches, applied):
        assert not switches.is_on("camera")
        assert switches.is_on("microphone")
        assert not switches.are_all_off
        switches.command("microphone", b"OFF", False)
        wait_until(lambda: switches.are_all_off, "both off")
        switches.command("camera", b"ON", False)
        wait_until(lambda: applied[1:] == [("camera", True)], "the camera to be on")
    with switching(path) as (switches, _):
        assert switches.is_on("camera")
        assert not switches.is_on("microphone")


def test_part_that_is_not_configured_keeps_its_choice(tmp_path: Path) -> None:
    """A camera that was off is still off after a run without a camera."""
    path = tmp_path / "switches.json"
    path.write_text('{"camera": false}')
    with switching(path, parts=("microphone",)) as (switches, applied):
        off_before = switches.are_all_off
        switches.command("microphone", b"OFF", False)
        wait_until(lambda: applied, "the microphone to be off")
        assert (off_before, switches.are_all_off) == (False, True)
    with switching(path) as (switches, _):
        assert not switches.is_on("camera")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b'{"camera": "ON"}', b"\xff\x00", b'{"camera": 0}']
)
def test_unreadable_file_keeps_both_off(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has one sentence, nothing is opened, and a command repairs the file."""
    path = tmp_path / "switches.json"
    path.write_bytes(content)
    with switching(path) as (switches, applied):
        assert switches.are_all_off
        switches.command("camera", b"ON", False)
        wait_until(lambda: applied, "the camera to be on")
    assert "stay off" in caplog.text
    with switching(path) as (switches, _):
        assert (switches.is_on("camera"), switches.is_on("microphone")) == (True, False)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PermissionError(13, "denied"), "not_permitted"),
        (OSError(5, "I/O error"), "not_readable"),
        (None, "corrupt"),
    ],
)
def test_unreadable_file_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError | None, reason: str
) -> None:
    """The status has the reason why both are off, until a command writes the file."""
    path = tmp_path / "switches.json"
    path.write_bytes(b"[" * 200_000)
    health = Health()
    if error is not None:
        failing = error

        def read(_path: Path) -> bytes:
            raise failing

        monkeypatch.setattr(Path, "read_bytes", read)
    with switching(path, health=health) as (switches, applied):
        assert health.reasons == [f"switches:{reason}"]
        assert switches.are_all_off
        switches.command("camera", b"ON", False)
        wait_until(lambda: applied, "the camera to be on")
        assert health.reasons == []


@pytest.mark.parametrize(
    ("number", "reason"),
    [(errno.ENOSPC, "disk_full"), (errno.EACCES, "not_permitted"), (errno.EROFS, "read_only")],
)
def test_reason_of_an_unwritable_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, reason: str
) -> None:
    """A full disk, a missing permission and a read-only file system are named."""

    def write(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("edge.host.switches.write_json", write)
    health = Health()
    with switching(tmp_path / "switches.json", health=health) as (switches, applied):
        switches.command("camera", b"OFF", False)
        wait_until(lambda: applied, "the camera to be off")
        assert health.reasons == [f"switches:{reason}"]


def test_unwritable_file_is_a_fault_and_the_switch_works(tmp_path: Path) -> None:
    """The device is closed anyway; the fault reports that a restart forgets the choice."""
    path = tmp_path / "switches.json"
    health = Health()
    with switching(path, health=health) as (switches, applied):
        path.mkdir()
        switches.command("camera", b"OFF", False)
        wait_until(lambda: applied == [("camera", False)], "the camera to be off")
        assert health.reasons == ["switches:not_writable"]
        path.rmdir()
        switches.command("camera", b"OFF", False)
        wait_until(lambda: len(applied) == 2, "the second command")
        assert health.reasons == []


@pytest.mark.parametrize(
    "payload", [b"", b"on", b"ON ", b"true", b"\x00", "AUS ☃".encode(), b"x" * 1_000_000]
)
def test_garbage_is_refused_once_in_the_log_and_always_counted(
    tmp_path: Path, payload: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Other words and other case are refused; the log has one short line until a valid command comes."""
    caplog.set_level(logging.INFO)
    health = Health()
    with switching(tmp_path / "switches.json", health=health) as (switches, applied):
        for _ in range(3):
            switches.command("camera", payload, False)
        assert health.counters["commands_refused"] == 3
        (record,) = caplog.records
        assert f"{len(payload)} bytes" in record.getMessage()
        assert len(record.getMessage()) < 300
        switches.command("camera", b"ON", False)
        wait_until(lambda: applied == [("camera", True)], "the good command")
        switches.command("camera", payload, False)
        assert len([r for r in caplog.records if "refused" in r.getMessage()]) == 2


def test_retained_command_is_ignored(tmp_path: Path) -> None:
    """A command that the broker stored does not change a switch."""
    with switching(tmp_path / "switches.json") as (switches, applied):
        switches.command("camera", b"OFF", True)
        switches.command("microphone", b"OFF", False)
        wait_until(lambda: applied, "a command")
        assert applied == [("microphone", False)]


def test_last_command_of_a_burst_wins(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 400 commands while a device is slow, the last OFF is carried out; the disk and the log see few."""
    caplog.set_level(logging.INFO)
    writes: list[object] = []
    write_json = files.write_json

    def counted(path: Path, value: Mapping[str, Any]) -> None:
        writes.append(value)
        write_json(path, value)

    monkeypatch.setattr("edge.host.switches.write_json", counted)
    is_slow, may_end = threading.Event(), threading.Event()
    applied: Applied = []

    def apply(part: str, is_on: bool) -> None:
        is_slow.set()
        may_end.wait(10)
        applied.append((part, is_on))

    path = tmp_path / "switches.json"
    switches = Switches(path, parts=("camera", "microphone"), health=Health(), settle_s=0.01)
    switches.start(apply)
    switches.command("camera", b"ON", False)
    assert is_slow.wait(10)
    for number in range(400):
        switches.command("microphone", b"OFF" if number % 2 else b"ON", False)
        switches.command("camera", b"OFF" if number % 2 else b"ON", False)
        switches.command("camera", b"garbage", False)
    may_end.set()
    wait_until(lambda: len(applied) == 3, "the last command of each part")
    switches.close()
    assert sorted(applied[1:]) == [("camera", False), ("microphone", False)]
    assert json.loads(path.read_text()) == {"camera": False, "microphone": False}
    assert len(writes) == 2
    assert [record.getMessage() for record in caplog.records if "switched" in record.getMessage()] == [
        "microphone: switched off",
        "camera: switched off",
    ]
    assert len(caplog.records) == 3, "one line for what was refused"


def test_changes_in_a_row_are_limited_and_close_carries_out_the_last(tmp_path: Path) -> None:
    """Within `settle_s` only the first command is carried out; closing does not lose the waiting OFF."""
    applied: Applied = []
    switches = Switches(tmp_path / "switches.json", parts=("camera",), health=Health(), settle_s=60)
    switches.start(lambda part, is_on: applied.append((part, is_on)))
    switches.command("camera", b"ON", False)
    wait_until(lambda: applied, "the first command")
    for _ in range(100):
        switches.command("camera", b"ON", False)
        switches.command("camera", b"OFF", False)
    assert applied == [("camera", True)]
    switches.close()
    assert applied == [("camera", True), ("camera", False)]
    assert read_switches(tmp_path / "switches.json")["camera"] is False
