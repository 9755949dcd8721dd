"""systemd's sd_notify protocol: ready, status, watchdog."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


class Notifier:
    """Sends to systemd by the sd_notify protocol; does nothing outside systemd."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        # Half of the interval that systemd permits, as sd_watchdog_enabled(3) advises.
        self.watchdog_s = int(environ.get("WATCHDOG_USEC", "0")) / 2e6

    def ready(self) -> None:
        """Report that start-up is complete."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """Set the line that `systemctl status` shows."""
        self._send(f"STATUS={text}")

    def alive(self) -> None:
        """Ping the watchdog."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """Report that shutdown has begun."""
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as unix:
            try:
                unix.connect(self._address)
                unix.send(message.encode())
            except OSError:
                self._address = ""  # systemd no longer listens; the daemon runs on without it
