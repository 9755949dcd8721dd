"""The brokers of the sample configurations in systemd/, run as they are shipped, ports and paths aside."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from brokers import Mosquitto

SAMPLES = Path(__file__).parents[1] / "systemd"


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
        for name, password in users.items():
            subprocess.run(["mosquitto_passwd", "-b", passwords, name, password], check=True)
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


def substitute(text: str, replacements: Mapping[str, str]) -> str:
    """Replace each key, which has to be there."""
    for old, new in replacements.items():
        assert old in text, f"the sample no longer has {old!r}"
        text = text.replace(old, new)
    return text
