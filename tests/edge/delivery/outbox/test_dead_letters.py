"""`emotion-edge outbox`: a second process reads and repairs the queue of a daemon."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from edge.__main__ import main
from edge.delivery.messages import load_schema
from edge.delivery.outbox.dead_letters import DeadLetters
from edge.delivery.outbox.queue import Outbox
from tests.helpers.brokers import (
    Mosquitto,
    is_empty,
    make_event,
    publishing,
    running,
    settings_of,
    wait_until,
    watching,
)
from tests.helpers.commands import run_edge, run_here

EVENT = "emotion/kitchen/event"


def command(path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `emotion-edge outbox` on a file, with a connection of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMOTION_EDGE__OUTBOX__PATH", str(path))
        return run_here(main, "outbox", *words)


def checked(schema: str, text: str) -> Any:
    """Return JSON that fits a schema."""
    value = json.loads(text)
    jsonschema.Draft202012Validator(load_schema(schema)).validate(value)
    return value


@pytest.fixture
def filled(outbox: Outbox) -> Outbox:
    """An outbox in which 1 and 3 were refused and 2 and 4 wait."""
    outbox.append_many([make_event(n) for n in range(1, 5)])
    outbox.refuse(1, "not_authorized")
    outbox.refuse(3, "packet_too_large")
    return outbox


def test_show_as_json_and_as_a_table(filled: Outbox) -> None:
    """Counts and dead letters, for programs by the schema, for pipes as lines."""
    shown = checked("outbox", command(filled.path, "--json").stdout)
    assert (shown["waiting"], shown["refused"], shown["kept_dead_letters"]) == (2, 2, 2)
    assert [letter["sequence"] for letter in shown["dead_letters"]] == [3, 1]
    lines = command(filled.path).stdout.splitlines()
    assert "waiting\t2" in lines
    assert any(line.startswith("3\tpacket_too_large\t") for line in lines)


def test_retry_while_the_publisher_runs(tmp_path: Path, outbox: Outbox) -> None:
    """Events that an access list refused are sent after `retry`, unchanged and in order."""
    access = tmp_path / "acl"
    access.write_text("topic read emotion/#\ntopic readwrite emotion/kitchen/availability\n")
    broker = Mosquitto(tmp_path, f"acl_file {access}")
    with running(broker), publishing(settings_of(broker), outbox) as publisher:
        outbox.append_many([make_event(n) for n in range(3)])
        publisher.event_added()
        wait_until(lambda: outbox.counts().refused == 3, "three dead letters")
        broker.stop()
        access.write_text("topic readwrite emotion/#\n")
        broker.start()
        with watching(broker, EVENT) as watcher:
            wait_until(lambda: publisher.connection_state.connected, "a connection")
            outbox.append(make_event(3))
            publisher.event_added()
            wait_until(lambda: watcher.on(EVENT), "the new event")
            env = {**os.environ, "EMOTION_EDGE__OUTBOX__PATH": str(outbox.path)}
            done = run_edge("outbox", "retry", "--json", env=env)
            assert checked("outbox_action", done.stdout)["refused"] == 3
            wait_until(lambda: len(watcher.on(EVENT)) == 4, "the retried events", timeout_s=5)
            wait_until(is_empty(outbox), "an empty outbox")
            events = [json.loads(payload) for payload in watcher.on(EVENT)]
            assert [event["sequence"] for event in events] == [4, 1, 2, 3]
            assert [event["id"] for event in events] == ["event-3", "event-0", "event-1", "event-2"]
            assert outbox.refused() == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], [("waiting", 2), ("waiting", 4), ("refused", 1), ("refused", 3)]),
        (["--waiting"], [("waiting", 2), ("waiting", 4)]),
        (["--refused"], [("refused", 1), ("refused", 3)]),
    ],
)
def test_export_is_complete_and_changes_nothing(
    filled: Outbox, tmp_path: Path, words: list[str], expected: list[tuple[str, int]]
) -> None:
    """JSON lines of the chosen parts, to standard output or into a new private file."""
    file = tmp_path / "export.jsonl"
    before = filled.counts()
    lines = command(filled.path, "export", *words).stdout.splitlines()
    entries = [checked("outbox_entry", line) for line in lines]
    assert [(entry["state"], entry["event"]["sequence"]) for entry in entries] == expected
    assert command(filled.path, "export", *words, "--output", str(file)).returncode == 0
    assert file.read_text().splitlines() == lines
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = command(filled.path, "export", "--output", str(file))
    assert again.returncode == 1
    assert "name a new file" in again.stderr
    assert filled.counts() == before


def test_export_pages_through_many(outbox: Outbox) -> None:
    """More than one page of rows comes whole and in order."""
    outbox.append_many([make_event(n) for n in range(1201)])
    with closing(DeadLetters(outbox.path)) as letters:
        assert [entry["event"]["sequence"] for entry in letters.export("waiting")] == list(range(1, 1202))


def test_purge_needs_yes(filled: Outbox) -> None:
    """Without --yes it only prints what it would delete; with --yes it deletes the chosen parts."""
    asked = command(filled.path, "purge")
    assert asked.returncode == 1
    assert "would delete 2 events that were never sent and 2 dead letters" in asked.stdout
    assert filled.counts().waiting == 2
    not_done = checked("outbox_action", command(filled.path, "purge", "--json").stdout)
    assert not_done == {"action": "purge", "waiting": 2, "refused": 2, "done": False}
    done = checked("outbox_action", command(filled.path, "purge", "--refused", "--yes", "--json").stdout)
    assert done == {"action": "purge", "waiting": 0, "refused": 2, "done": True}
    assert (filled.refused(), filled.counts().waiting) == ([], 2)
    assert command(filled.path, "purge", "--yes").returncode == 0
    assert (filled.counts().waiting, filled.counts().waiting_bytes) == (0, 0)
    assert filled.append(make_event(9)) == 5


@pytest.mark.parametrize("action", ["show", "retry", "export", "purge"])
def test_no_outbox_is_made_or_set_aside(tmp_path: Path, action: str) -> None:
    """With a missing or damaged outbox the command exits with 1, and every file stays as it was."""
    path = tmp_path / "outbox.sqlite3"
    missing = command(path, action)
    assert missing.returncode == 1
    assert "no outbox file" in missing.stderr
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(b"\xa5" * 8192)
    damaged = command(path, action)
    assert damaged.returncode == 1
    assert "start the daemon, which sets it aside" in damaged.stderr
    assert "Traceback" not in damaged.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["outbox.sqlite3"]
    assert path.read_bytes() == b"\xa5" * 8192


def test_locked_outbox_is_an_error(filled: Outbox) -> None:
    """While another process writes, the command fails with a message instead of waiting."""
    with closing(sqlite3.connect(filled.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        done = command(filled.path, "retry")
    assert done.returncode == 1
    assert "locked; another process holds it" in done.stderr
