"""HTTP clients and `set` messages in floods: the page answers, the daemon lives and the last command wins."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from edge.host.switches import SETTLE_S
from edge.page.connections import ACCEPT_AT_ONCE, MAX_CONNECTIONS
from edge.page.streams import MAX_STREAMS
from tests.chaos.outcome import Outcome, pick
from tests.edge.page.test_browser import Site
from tests.helpers.brokers import Nats, wait_until, watching

Record = Callable[[Outcome], None]

CLIENTS = pick(100, 1050)
COMMANDS = 400
LOG_BYTES = 20_000
FLOODS = {
    "silent connections": b"",
    "half-sent requests": b"GET /healthz HTTP/1.1\r\nHost: loc",
    "event streams": b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One daemon with its page for all floods."""
    directory = tmp_path_factory.mktemp("flood")
    with Nats(directory / "broker") as broker:
        flooded = Site(directory, broker)
        flooded.start()
        try:
            yield flooded
        finally:
            flooded.stop()


def descriptors(site: Site) -> int:
    """Return the number of open file descriptors of the daemon."""
    assert site.process is not None
    return len(list(Path(f"/proc/{site.process.pid}/fd").iterdir()))


@pytest.mark.parametrize("flood", FLOODS)
def test_flood_of_http_clients(site: Site, flood: str, record: Record) -> None:
    """`/healthz` answers during the flood; descriptors, streams and the log stay bounded."""
    assert site.process is not None
    before, most, accepted = descriptors(site), 0, 0
    with ExitStack() as stack:
        clients = []
        for _ in range(CLIENTS):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", site.port), timeout=10))
            client.sendall(FLOODS[flood])
            clients.append(client)
            most = max(most, descriptors(site))
        started_s = time.monotonic()
        assert site.ask("GET", "/healthz")[0] == 200
        answer_s = time.monotonic() - started_s
        if flood == "event streams":
            accepted = sum(is_accepted(client) for client in clients)
    note = f"at most {most - before} descriptors, {site.log.stat().st_size} bytes of log"
    record(Outcome("page", f"{CLIENTS} clients", flood, 0, 0, 0, answer_s, note))
    # Accepted ones are admitted, replaced and closed in rounds of the event loop, a batch in each.
    assert most - before <= MAX_CONNECTIONS + 4 * (ACCEPT_AT_ONCE + 1)
    assert accepted == (MAX_STREAMS if flood == "event streams" else 0)
    assert site.log.stat().st_size < LOG_BYTES
    assert site.process.poll() is None


def is_accepted(client: socket.socket) -> bool:
    """Return whether the answer to a request begins with 200."""
    try:
        return client.recv(12).endswith(b"200")
    except ConnectionResetError:
        return False


def test_burst_of_switch_commands(site: Site, record: Record) -> None:
    """Of 400 `set` messages the last one, OFF, is carried out; the log has a line for few of them."""
    assert isinstance(site.broker, Nats)
    state = "emotion/lab/microphone/enabled/state"
    with watching(site.broker, state) as watcher:
        started_s = time.monotonic()
        for number in range(COMMANDS):
            watcher.publish("emotion/lab/microphone/enabled/set", b"OFF" if number % 2 else b"ON")
        time.sleep(2 * SETTLE_S)
        wait_until(lambda: watcher.on(state)[-1:] == [b"OFF"], "the last OFF")
    lines = site.log.read_text().count("switched")
    took_s = time.monotonic() - started_s
    record(
        Outcome("page", f"{COMMANDS} commands", "burst of switches", 0, 0, 0, took_s, f"{lines} log lines")
    )
    assert lines <= 20
