"""Fuzz target: malformed HTTP requests to the page of a real daemon."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

from tests.fuzz.damage import damage
from tests.fuzz.live import LiveDaemon, live_daemon
from tests.fuzz.target import Target, Verdict

PATHS = [
    *("/", "/healthz", "/metrics", "/preview.jpg", "/camera", "/preview", "/app.js", "/../../etc/passwd"),
    *(
        "//",
        "*",
        "/%00",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/" + "a" * 9000,
        "http://other/",
        "/?token=" + "x" * 50,
    ),
]
METHODS = ["GET", "GET", "POST", "HEAD", "PUT", "OPTIONS", "", "G" * 70_000, "get"]
HEADERS = [
    *("Host: localhost", "Host: evil.example", "Host:", "Content-Length: 5", "Content-Length: -1", ": x"),
    *(
        "Content-Length: " + "9" * 5000,
        "Transfer-Encoding: chunked",
        "Authorization: Bearer x",
        "A: " + "b" * 70_000,
    ),
    *(
        "Content-Type: application/json",
        "Origin: null",
        "Cookie: a=b",
        "X\0: 1",
        "Connection: keep-alive",
        " folded",
    ),
]
BODIES = [b"", b'{"on": false}', b'{"on": 1e999}', b"[" * 50_000, b"\xff\xfe", b"5\r\nhello\r\n0\r\n\r\n"]


def generate(random: Random) -> bytes:
    """Return one request, often damaged."""
    lines = [
        f"{random.choice(METHODS)} {random.choice(PATHS)} HTTP/{random.choice(('1.1', '1.1', '1.0', '9'))}"
    ]
    if random.random() < 0.7:
        lines.append("Host: localhost")  # others are refused before anything else is read
    lines += random.sample(HEADERS, random.randrange(4))
    request = "\r\n".join(lines).encode() + b"\r\n\r\n" + random.choice(BODIES)
    return damage(request, random) if random.random() < 0.6 else request


class Page:
    """The page of the daemon."""

    def __init__(self, daemon: LiveDaemon) -> None:
        self.pid = daemon.pid
        self._daemon = daemon

    def run(self, data: bytes) -> Verdict:
        answer = b""
        client = socket.create_connection(("127.0.0.1", self._daemon.port), timeout=10)
        with client, suppress(ConnectionError):  # the server may close before it has read everything
            client.sendall(data)
            with suppress(OSError):  # not connected any more
                client.shutdown(socket.SHUT_WR)
            while len(answer) < 1 << 16 and (more := client.recv(1 << 16)):
                answer += more
        status = answer[9:12]
        assert status[:1] != b"5" or status in (b"501", b"503", b"505"), answer[:200]
        return Verdict(status == b"200", answer.decode(errors="replace") + self._daemon.check())


@contextmanager
def opened(directory: Path) -> Iterator[Page]:
    with live_daemon(directory) as daemon:
        yield Page(daemon)


TARGET = Target("requests", generate, opened)
