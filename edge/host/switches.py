"""Stores whether the camera and the microphone may be opened, and accepts the commands that change it.

The choice is kept in a small file and survives restarts. An unreadable file keeps both off: a person who
switched the camera off must not be recorded because of a damaged file.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from edge.delivery.outbox.file import reason_of
from edge.files import write_json
from edge.health import Health
from edge.log_once import LogOnce
from edge.values import PARTS

log = logging.getLogger(__name__)

COMMANDS = {b"ON": True, b"OFF": False}
SHOWN = 32  # bytes of a refused payload in the log
SETTLE_S = 0.25  # least time between two changes: each writes to the disk and moves a device


class Switches:
    """One switch for each of `PARTS`, on until it is switched off; `parts` are those that this device has.

    `command` returns at once, because closing a device and writing to an SD card take time. One command
    waits for each part, and a newer one replaces it: in a burst the last one counts, and none is lost.
    """

    def __init__(
        self, path: Path, *, parts: Sequence[str], health: Health, settle_s: float = SETTLE_S
    ) -> None:
        self.parts = tuple(parts)
        self._path = path
        self._health = health
        # All parts: one that is not configured now keeps its choice.
        self._is_on = read_switches(path, on_fault=partial(health.fault, "switches"))
        self._is_saved = False  # whether the file has what `_is_on` has
        self._settle_s = settle_s
        # Commands come from the MQTT thread and from the page.
        self._changed = threading.Condition()
        self._waiting: dict[str, bool] = {}
        self._is_closing = False
        self._refusals = LogOnce(log)
        self._thread: threading.Thread | None = None

    def start(self, apply: Callable[[str, bool], None]) -> None:
        """Carry out commands from now on, on a thread of this class.

        `apply(part, is_on)` is called there for each command, after the choice is on disk.
        """
        self._thread = threading.Thread(target=self._run, args=(apply,), name="switches", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Carry out the waiting commands, for at most a second."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(1.0)

    def is_on(self, part: str) -> bool:
        """Return whether the part may be opened."""
        return self._is_on[part]

    @property
    def are_all_off(self) -> bool:
        """Whether this device has parts and all of them are off."""
        return bool(self.parts) and not any(self._is_on[part] for part in self.parts)

    def command(self, part: str, payload: bytes, retained: bool) -> None:
        """Accept `ON` or `OFF` for a part; refuse other payloads and ignore retained messages."""
        if retained:
            # The broker sends it at every connect, where it would undo a newer choice.
            log.info("%s/enabled/set: a retained command is ignored; send it without the retain flag", part)
            return
        if payload not in COMMANDS:
            self._refuse(part, payload)
            return
        with self._changed:
            self._waiting[part] = COMMANDS[payload]
            self._changed.notify()

    def _refuse(self, part: str, payload: bytes) -> None:
        self._health.counters["commands_refused"] += 1
        more = "..." if len(payload) > SHOWN else ""
        message = "%s/enabled/set: %d bytes %r%s refused; send ON or OFF"
        with self._changed:
            self._refusals.report(part, "refused", message, part, len(payload), payload[:SHOWN], more)

    def _run(self, apply: Callable[[str, bool], None]) -> None:
        while commands := self._take():
            changes = {part: is_on for part, is_on in commands.items() if self._is_on[part] != is_on}
            for part, is_on in changes.items():
                log.info("%s: switched %s", part, "on" if is_on else "off")
            self._is_on.update(changes)
            if changes or not self._is_saved:
                self._save()
            for part, is_on in commands.items():
                try:
                    apply(part, is_on)
                except Exception:  # outermost loop: the next command must still be carried out
                    log.exception("%s: internal error, the switch failed", part)
            with self._changed:
                self._changed.wait_for(lambda: self._is_closing, self._settle_s)

    def _take(self) -> dict[str, bool]:
        """Wait for commands and return the newest of each part; none when the switches close."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closing)
            commands, self._waiting = self._waiting, {}
            for part in commands:
                self._refusals.clear(part)
            return commands

    def _save(self) -> None:
        try:
            write_json(self._path, self._is_on)
        except OSError as error:
            detail = f"{self._path}: {error.strerror}; a restart forgets the switches"
            self._is_saved = False
            self._health.fault("switches", reason_of(error), detail)
        else:
            self._is_saved = True
            self._health.clear("switches")


def read_switches(
    path: Path, *, on_fault: Callable[[str, str], None] = lambda _reason, _detail: None
) -> dict[str, bool]:
    """Return which of `PARTS` are on, as the file at `path` has them; an unreadable file is all off.

    `on_fault` gets the reason (`corrupt`, `not_permitted` or `not_readable`) and a sentence.
    """
    try:
        stored = json.loads(path.read_bytes())
        if not isinstance(stored, dict) or not all(isinstance(value, bool) for value in stored.values()):
            raise ValueError("not an object of true and false")
    except FileNotFoundError:
        return dict.fromkeys(PARTS, True)
    except (OSError, ValueError, RecursionError) as error:
        detail = (
            f"{path}: cannot be read ({error}); camera and microphone stay off until they are switched on, "
            "or until the file is deleted and the daemon restarted"
        )
        log.error("%s", detail)
        on_fault(_reason_of_read(error), detail)
        return dict.fromkeys(PARTS, False)
    return {part: stored.get(part, True) for part in PARTS}


def _reason_of_read(error: Exception) -> str:
    if not isinstance(error, OSError):
        return "corrupt"
    return "not_permitted" if isinstance(error, PermissionError) else "not_readable"
