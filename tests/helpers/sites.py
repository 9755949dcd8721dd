"""The brokers of the sample configurations in systemd/, run as they are shipped, ports and paths aside."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from edge.delivery.embedded_broker import accepts, find_server
from edge.settings import MqttSettings
from tests.helpers.brokers import Mosquitto, free_port, wait_until

SAMPLES = Path(__file__).parents[2] / "systemd"


class SiteMosquitto(Mosquitto):
    """mosquitto with `systemd/mosquitto.conf` and `mosquitto.acl`; `users` has a password for each name.

    `certificate`: the PEM files of a certificate and its key, for the listener that the sample has commented.
    """

    def __init__(
        self, directory: Path, users: Mapping[str, str], *, certificate: tuple[Path, Path] | None = None
    ) -> None:
        super().__init__(directory)
        passwords, access = directory / "emotion-edge.passwd", directory / "emotion-edge.acl"
        passwords.touch(mode=0o600)
        passwords.write_text("".join(f"{name}:{password}\n" for name, password in users.items()))
        subprocess.run(["mosquitto_passwd", "-U", passwords], check=True)  # puts hashes in their places
        access.write_text((SAMPLES / "mosquitto.acl").read_text())
        text = (SAMPLES / "mosquitto.conf").read_text()
        listener = "listener 1883\n"
        if certificate is not None:
            text = text.replace(listener, "")
            listener = "#listener 8883\n"
            text = substitute(
                text,
                {
                    "#certfile /etc/mosquitto/certs/broker.pem": f"certfile {certificate[0]}",
                    "#keyfile /etc/mosquitto/certs/broker.key": f"keyfile {certificate[1]}",
                },
            )
        replacements = {
            listener: f"listener {self.port} 127.0.0.1\n",
            "/etc/mosquitto/emotion-edge.passwd": str(passwords),
            "/etc/mosquitto/emotion-edge.acl": str(access),
            "/var/lib/mosquitto/": f"{directory}/",
            "/run/mosquitto/mosquitto.pid": str(directory / "mosquitto.pid"),
            "file /var/log/mosquitto/mosquitto.log": "stderr",
        }
        text = substitute(text, replacements)
        if os.geteuid() == 0:
            text += "user root\n"  # it would become `mosquitto`, who cannot read the test's directory
        self._config.write_text(text)


class NatsNode:
    """One of three NATS servers with `systemd/nats-cluster.conf`; `kill` and `start` keep its ports."""

    host = "127.0.0.1"

    def __init__(self, directory: Path, number: int, *, routes: Sequence[int], users: str) -> None:
        directory.mkdir()
        self.port = free_port()
        self.name = f"nats-{number}"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        names = {
            f"nats://nats-{n}.example:6222": f"nats://127.0.0.1:{port}" for n, port in enumerate(routes, 1)
        }
        replacements = {
            "127.0.0.1:4222": "127.0.0.1:-1",
            "0.0.0.0:6222": f"127.0.0.1:{routes[number - 1]}",
            "0.0.0.0:1883": f"127.0.0.1:{self.port}",
            "/var/lib/nats": str(directory / "store"),
            **names,
        }
        text = substitute((SAMPLES / "nats-cluster.conf").read_text(), replacements)
        (directory / "nats-cluster.conf").write_text(text)
        (directory / "nats-users.conf").write_text(users)

    def start(self) -> None:
        """Start it; it is ready when it has found the others."""
        self._process = subprocess.Popen(
            [find_server(), "-c", self._directory / "nats-cluster.conf", "--log", self._directory / "log"],
            env={**os.environ, "NATS_NODE": self.name},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def kill(self) -> None:
        """End it with -9."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to end."""
        self._end(signal.SIGTERM)

    def clients(self) -> int:
        """Return how many MQTT connections it has."""
        assert self._process is not None
        connections = psutil.Process(self._process.pid).net_connections("tcp4")
        return sum(c.laddr[1] == self.port and c.status == psutil.CONN_ESTABLISHED for c in connections)

    def accepts(self, username: str, password: str) -> bool:
        """Return whether it accepts an MQTT client."""
        settings = MqttSettings(host=self.host, port=self.port, username=username)
        return accepts(settings, client_id=f"ready-{self.name}", password=password)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(20)


def users_with(devices: Sequence[str]) -> str:
    """Return `systemd/nats-users.conf` with the block of its one device repeated for each of `devices`."""
    text = (SAMPLES / "nats-users.conf").read_text()
    block = re.search(
        r"            \{\n                user: \"room-1\".*?\n            \}\n", text, re.DOTALL
    )
    assert block is not None, "the sample no longer has a device"
    return text.replace(block[0], "".join(block[0].replace("room-1", device) for device in devices))


@contextmanager
def running_cluster(directory: Path, devices: Sequence[str]) -> Iterator[list[NatsNode]]:
    """Run the three nodes while the block lasts, with a user for each device; passwords as in the sample."""
    routes = [free_port() for _ in range(3)]
    users = users_with(devices)
    nodes = [NatsNode(directory / f"node-{n}", n, routes=routes, users=users) for n in (1, 2, 3)]
    try:
        for node in nodes:
            node.start()
        for node in nodes:
            wait_until(lambda: node.accepts("reader", "change-me-2"), f"{node.name}", timeout_s=40)
        yield nodes
    finally:
        for node in nodes:
            node.stop()


def substitute(text: str, replacements: Mapping[str, str]) -> str:
    """Replace each key, which has to be there."""
    for old, new in replacements.items():
        assert old in text, f"the sample no longer has {old!r}"
        text = text.replace(old, new)
    return text
