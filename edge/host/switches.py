"""Remembers whether the camera and the microphone may be opened, and takes the commands that say so.

The choice lies in a small file and survives restarts. A file that cannot be understood keeps both off:
whoever wanted not to be seen must not be seen because of a full disk.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from edge.health import Health
from edge.values import PARTS

log = logging.getLogger(__name__)

WORDS = {b"ON": True, b"OFF": False}
SHOWN = 32  # bytes of a refused payload that reach the log
MAX_WAITING = 64  # commands not yet carried out


class Switches:
    """A switch for each of `PARTS`, on until somebody touches it; `parts` are those that this device has.

    `command` is for the MQTT thread and returns at once: closing a device and writing to a card take time.
    """

    def __init__(self, path: Path, *, parts: Sequence[str], health: Health) -> None:
        self._path = path
        self._health = health
        self.parts = tuple(parts)
        # Also of a part that is not configured now: it comes back as it was left.
        self._is_on = {**dict.fromkeys(PARTS, True), **self._load()}
        self._told: set[str] = set()  # parts of which a bad command is in the log already
        self._commands: queue.Queue[tuple[str, bool] | None] = queue.Queue(MAX_WAITING)
        self._thread: threading.Thread | None = None

    def start(self, apply: Callable[[str, bool], None]) -> None:
        """Carry out commands from now on, on a thread of this class.

        `apply(part, is_on)` is called there for each command, after the choice is on disk.
        """
        self._thread = threading.Thread(target=self._run, args=(apply,), name="switches", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Finish the commands that came, at most for a second."""
        with suppress(queue.Full):
            self._commands.put_nowait(None)
        if self._thread is not None:
            self._thread.join(1.0)

    def is_on(self, part: str) -> bool:
        """Tell whether the part may be opened."""
        return self._is_on[part]

    @property
    def are_all_off(self) -> bool:
        """Tell whether this device has a part, and none that is on."""
        return bool(self.parts) and not any(self._is_on[part] for part in self.parts)

    def command(self, part: str, payload: bytes, retained: bool) -> None:
        """Take `ON` or `OFF` for a part; refuse everything else, and what the broker had stored."""
        if retained:
            # Stored long ago for whoever subscribes: it would undo a choice at every reconnect.
            log.info("%s/enabled/set: a retained command is ignored; send it without the retain flag", part)
            return
        if payload not in WORDS:
            self._refuse(part, payload)
            return
        self._told.discard(part)
        try:
            self._commands.put_nowait((part, WORDS[payload]))
        except queue.Full:
            log.warning("%s/enabled/set: %d commands wait already; this one is lost", part, MAX_WAITING)

    def _refuse(self, part: str, payload: bytes) -> None:
        self._health.counters["commands_refused"] += 1
        if part not in self._told:
            more = "..." if len(payload) > SHOWN else ""
            log.warning(
                "%s/enabled/set: %d bytes %r%s refused; send ON or OFF",
                part,
                len(payload),
                payload[:SHOWN],
                more,
            )
            self._told.add(part)

    def _run(self, apply: Callable[[str, bool], None]) -> None:
        while (command := self._commands.get()) is not None:
            part, is_on = command
            if self._is_on[part] != is_on:
                log.info("%s: switched %s", part, "on" if is_on else "off")
            self._is_on[part] = is_on
            self._save()
            try:
                apply(part, is_on)
            except Exception:  # outermost loop: the next command must find somebody here
                log.exception("%s: the switch failed", part)

    def _load(self) -> dict[str, bool]:
        try:
            known = json.loads(self._path.read_bytes())
            if not isinstance(known, dict) or not all(isinstance(value, bool) for value in known.values()):
                raise ValueError("not an object of true and false")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            log.error(
                "%s: cannot be read (%s); camera and microphone stay off until they are switched on, "
                "or until the file is deleted and the daemon restarted",
                self._path,
                error,
            )
            return dict.fromkeys(PARTS, False)
        return {part: known[part] for part in PARTS if part in known}

    def _save(self) -> None:
        """Replace the file as a whole: a crash leaves the old one or the new one."""
        draft = self._path.with_name(f"{self._path.name}.new")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with draft.open("w", encoding="utf-8") as file:
                json.dump(self._is_on, file)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path)
            directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            self._health.fault(
                "switches", "not_writable", f"{self._path}: {error.strerror}; a restart forgets the switches"
            )
        else:
            self._health.clear("switches")
