"""The page under attack: silent connections, half-sent requests, clients that do not read, many streams."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from edge.page import connections
from edge.page.connections import BoundedProtocol, RepeatFilter
from edge.page.streams import MAX_STREAMS
from edge.page.view import PageView
from tests.edge.page.test_server import Site, serving
from tests.helpers.brokers import wait_until

REQUEST_S = 0.5


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A page with 12 connections and a short deadline."""
    monkeypatch.setattr(BoundedProtocol, "max_connections", 12)
    monkeypatch.setattr(BoundedProtocol, "request_s", REQUEST_S)
    monkeypatch.setattr(BoundedProtocol, "stall_s", REQUEST_S)
    with serving() as running:
        yield running


def connect(site: Site, stack: ExitStack, sent: bytes = b"") -> socket.socket:
    """Open a connection and send the beginning of a request."""
    host, _, port = site.root.rpartition(":")
    client = stack.enter_context(socket.create_connection((host, int(port)), timeout=10))
    if sent:
        client.sendall(sent)
    return client


def is_closed(client: socket.socket) -> bool:
    """Return whether the server closed the connection within the timeout of the socket."""
    try:
        return client.recv(1 << 16) == b""
    except ConnectionResetError:
        return True


def descriptors() -> int:
    """Return the number of open file descriptors of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


def test_silent_connections_are_bounded_and_the_page_answers(site: Site) -> None:
    """With 100 silent connections the server holds 12, and a new client gets its answer."""
    before = descriptors()
    with ExitStack() as stack:
        for _ in range(100):
            connect(site, stack)
        started_s = time.monotonic()
        assert site.get("/healthz")[0] == 200
        assert time.monotonic() - started_s < 5
        # 100 are the clients' own, which share this process.
        assert descriptors() - before - 100 <= 12


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
        b"POST /preview HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 50\r\n\r\n{",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /healthz HTTP/1.1\r\n",
    ],
)
def test_request_has_a_deadline(site: Site, sent: bytes) -> None:
    """A connection without a whole request is closed, also after an answer and while bytes trickle in."""
    with ExitStack() as stack:
        client = connect(site, stack, sent)
        deadline_s = time.monotonic() + 10 * REQUEST_S
        client.settimeout(REQUEST_S / 5)
        while time.monotonic() < deadline_s:
            try:
                if is_closed(client):
                    return
            except TimeoutError:
                if sent.endswith(b"Slow: "):
                    client.send(b"x")
            except BrokenPipeError:
                return
        raise AssertionError("the connection is still open")


def test_half_sent_requests_do_not_lock_the_page(site: Site) -> None:
    """While 60 requests are half sent, the page answers 200."""
    with ExitStack() as stack:
        for _ in range(60):
            connect(site, stack, b"GET /healthz HTTP/1.1\r\nHost: loc")
        assert site.get("/healthz")[0] == 200


def test_streams_are_counted_when_accepted(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of many streams asked for at once exactly `MAX_STREAMS` are accepted; each end frees its place."""

    def message(_view: PageView, _live: Any, _session: str, *, with_hour: bool) -> dict[str, Any]:
        time.sleep(0.05)
        return {"hour": with_hour}

    monkeypatch.setattr(PageView, "message", message)
    monkeypatch.setattr(BoundedProtocol, "max_connections", 64)
    request = b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for _ in range(2):
        with ExitStack() as stack:
            clients = [connect(site, stack, request) for _ in range(40)]
            accepted = sum(client.recv(12).endswith(b"200") for client in clients)
            assert accepted == MAX_STREAMS
        wait_until(lambda: not site.dashboard._server.server_state.tasks, "the ends of all streams")
    assert caplog.records == []


def connections_of(site: Site) -> int:
    """Return how many connections the server holds."""
    return len(site.dashboard._server.server_state.connections)


def test_client_that_does_not_read_is_closed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream whose client takes nothing ends, and frees its connection."""
    monkeypatch.setattr(PageView, "message", lambda *_args, **_more: {"fill": "x" * 4_000_000})
    with ExitStack() as stack:
        connect(site, stack, b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: connections_of(site) == 1, "the connection")
        wait_until(lambda: connections_of(site) == 0, "its end")


def test_repeated_errors_are_logged_once(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Hundreds of invalid requests and of failing answers give one line each."""

    def fail() -> list[str]:
        raise OSError(24, "Too many open files")

    site.view.stuck = fail  # type: ignore[method-assign]
    for _ in range(20):
        assert site.get("/healthz")[0] == 500
        with ExitStack() as stack:
            assert b"400" in connect(site, stack, b"\x00\x01\r\n\r\n").recv(20)
    assert len(caplog.records) == 2


def test_repeat_filter_passes_a_message_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same message is logged again after `REPEAT_S`; another one at once."""
    repeats = RepeatFilter()
    first = logging.makeLogRecord({"msg": "a"})
    assert [repeats.filter(first), repeats.filter(first)] == [True, False]
    assert repeats.filter(logging.makeLogRecord({"msg": "b"}))
    monkeypatch.setattr(connections, "REPEAT_S", 0.0)
    assert repeats.filter(first)


@pytest.mark.parametrize(("method", "answer"), [(b"GET", b"HTTP/1.1 400"), (b"HEAD", b"")])
def test_malformed_body_is_no_internal_error(
    site: Site, method: bytes, answer: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A request whose refusal is on its way when its body turns out malformed gets one answer at most."""
    request = b" / HTTP/1.1\r\nHost: evil.example\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n"
    with ExitStack() as stack:
        client = connect(site, stack, method + request)
        assert client.recv(1 << 16)[:12] == answer
        wait_until(lambda: is_closed(client), "the end of the connection")
    assert site.get("/healthz")[0] == 200
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
