"""A bundle for a bug report contains no private data: the test plants canaries and searches for them."""

from __future__ import annotations

import base64
import getpass
import json
import os
import socket
import stat
import subprocess
import tarfile
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme

from edge.commands.doctor.scrub import Scrubber, scrubber_of
from edge.delivery.outbox.queue import Outbox
from edge.settings import Config, DeviceSettings, MqttSettings
from edge.values import EmotionEvent
from tests.edge.host.test_conditions import put
from tests.helpers.brokers import free_port
from tests.helpers.commands import run_edge

CANARIES = {
    "password": "canary-PASSWORD-1",
    "token": "canary-TOKEN-2",
    "camera user": "canary-CAMUSER-3",
    "camera password": "canary-CAMPASS-4",
    "account": "canary-account-5",
    "broker": "canary-broker-6.example",
    "device": "canary-device-7",
    "payload": "canary-PAYLOAD-8",
    "event id": "canary-EVENTID-9",
    "log payload": "canary-LOGPAYLOAD-10",
    "address": "203.0.113.77",
    "hardware address": "dc:a6:32:aa:bb:cc",
    "ipv6": "2001:db8::77",
    "person": "canary-person-11",
    "mail": "canary12@example.org",
    "prefix": "canary-prefix-13",
    "query": "canary-QUERY-14",
    "serial": "CANARYSERIAL15",
}


def read_bundle(path: Path) -> dict[str, str]:
    """Return the texts of an archive by their names."""
    with tarfile.open(path) as archive:
        members = archive.getmembers()
        files = {member.name: archive.extractfile(member) for member in members}
        assert all(file is not None for file in files.values())
        return {Path(name).name: file.read().decode() for name, file in files.items() if file}


def make_site(directory: Path) -> dict[str, str]:
    """Put a canary in every place with private data; return the environment of the doctor."""
    for name, text in (("mqtt-password", CANARIES["password"]), ("token", CANARIES["token"])):
        put(directory, name, f"{text}\n").chmod(0o600)
    key = directory / "device.key"
    trustme.CA().issue_cert("device").private_key_pem.write_to_path(str(key))
    key.chmod(0o600)
    (directory / "device.pem").write_text("no certificate\n")
    camera = f"rtsp://{CANARIES['camera user']}:{CANARIES['camera password']}@{CANARIES['address']}/s"
    config = put(
        directory,
        "config.toml",
        f'''version = 1
[device]
id = "{CANARIES["device"]}"
[camera]
source = "{camera}?key={CANARIES["query"]}"
[microphone]
source = "none"
[mqtt]
host = ["{CANARIES["broker"]}", "127.0.0.1:{free_port()}"]
username = "{CANARIES["account"]}"
password_file = "{directory}/mqtt-password"
prefix = "{CANARIES["prefix"]}"
tls = true
cert_file = "{directory}/device.pem"
key_file = "{key}"
[dashboard]
token_file = "{directory}/token"
[outbox]
path = "{directory}/state/outbox.db"
''',
    )
    (directory / "state").mkdir()
    with closing(
        Outbox(directory / "state/outbox.db", device=CANARIES["device"], max_events=9, max_bytes=9999)
    ) as box:
        event = EmotionEvent(
            CANARIES["event id"], "emotion.changed", datetime.now(UTC), 0, {"x": CANARIES["payload"]}
        )
        box.refuse(box.append(event), "not_authorized")
    logged = [
        f"INFO edge.daemon: running as {CANARIES['device']}, broker {CANARIES['broker']}:1883",
        f"WARNING edge.x: password {CANARIES['password']} and token={CANARIES['token']} slipped in",
        f"DEBUG edge.x: sent {{'emotion': '{CANARIES['log payload']}'}} to {CANARIES['address']}",
        f"WARNING edge.sources: {camera}: no answer; {CANARIES['camera user']} {CANARIES['camera password']}",
        f"INFO host {CANARIES['hardware address']} {CANARIES['ipv6']} {CANARIES['mail']}",
        f"INFO /home/{CANARIES['person']}/clip.mp4 https://{CANARIES['broker']}/?token={CANARIES['query']}",
        f"INFO v4l2:/dev/v4l/by-id/usb-046d_HD_Pro_Webcam_{CANARIES['serial']}-video-index0: opened",
        f"INFO {CANARIES['prefix']}/{CANARIES['device']}/state, user {CANARIES['account']}",
        f"INFO {key.read_text().splitlines()[1]}",
        "2026-01-02T03:04:05 INFO edge.daemon: camera recovered at 03:04:05 on 127.0.0.1",
    ]
    script = "#!/bin/sh\ncat <<'END'\n" + "\n".join(logged) + "\nEND\n"
    put(directory, "bin/journalctl", script).chmod(0o755)
    return {**os.environ, "PATH": f"{directory}/bin:{os.environ['PATH']}", "CONFIG": str(config)}


def run_bundle(env: dict[str, str], path: Path) -> subprocess.CompletedProcess[str]:
    """Run the doctor and write a bundle."""
    return run_edge("doctor", "--json", "--config", env["CONFIG"], "--bundle", str(path), env=env)


def test_no_canary_gets_into_the_bundle(tmp_path: Path) -> None:
    """No file has a canary, not even base64-encoded, and the useful files are complete."""
    env = make_site(tmp_path)
    done = run_bundle(env, tmp_path / "bundle.tar.gz")
    assert done.returncode == json.loads(done.stdout)["failed"], done.stderr
    texts = read_bundle(tmp_path / "bundle.tar.gz")
    everything = "\n".join(texts.values())
    key = (tmp_path / "device.key").read_text().splitlines()
    private = {**CANARIES, "machine": socket.gethostname(), "key": key[1], "key end": key[-2]}
    if getpass.getuser() != "root":
        private["user"] = getpass.getuser()
    for what, canary in private.items():
        assert canary.lower() not in everything.lower(), what
        assert base64.b64encode(canary.encode()).decode().rstrip("=") not in everything, what
    assert set(texts) == {
        "README.txt", "doctor.json", "config.toml", "versions.json",
        "devices.json", "conditions.json", "outbox.json", "journal.txt",
    }  # fmt: skip
    assert json.loads(texts["outbox.json"])["dead_letters"][0]["reason"] == "not_authorized"
    assert "broker-1:1883" in texts["journal.txt"]
    assert (
        "2026-01-02T03:04:05 INFO edge.daemon: camera recovered at 03:04:05 on 127.0.0.1"
        in texts["journal.txt"]
    )
    assert 'host = ["broker-1", "127.0.0.1:' in texts["config.toml"]
    assert json.loads(texts["versions.json"])["packages"]["paho-mqtt"].startswith("2.")


def test_bundle_is_private_and_overwrites_nothing(tmp_path: Path) -> None:
    """Only the owner may read it; a second run with the same name fails and changes nothing."""
    env = make_site(tmp_path)
    path = tmp_path / "bundle.tar.gz"
    run_bundle(env, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()
    again = run_bundle(env, path)
    assert again.returncode == 1
    assert "already exists; give the name of a new file" in again.stderr
    assert path.read_bytes() == before


def test_bundle_of_a_broken_config(tmp_path: Path) -> None:
    """An invalid config still gives a bundle, without the value of the faulty line."""
    env = make_site(tmp_path)
    Path(env["CONFIG"]).write_text('version = 1\n[mqtt]\nport = "canary-PASSWORD-1"\n')
    done = run_bundle(env, tmp_path / "bundle.tar.gz")
    assert done.returncode == 1
    texts = read_bundle(tmp_path / "bundle.tar.gz")
    assert "mqtt.port = '***'" in texts["doctor.json"]
    assert "not valid" in texts["config.toml"]
    assert "canary-PASSWORD-1" not in texts["doctor.json"] + texts["config.toml"]


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ("at 12:34:56 version 1.2.3", "at 12:34:56 version 1.2.3"),
        ("127.0.0.1:1883 and 10.1.2.3:1883", "127.0.0.1:1883 and <address>:1883"),
        ("fe80::1ff:fe23:4567:890a", "<address>"),
        ("dc:a6:32:aa:bb:cc", "<address>"),
        ("face-cnn@dec96ac34d9c", "face-cnn@dec96ac34d9c"),
        ("edge::module", "edge::module"),
        ("rtsp://a:b@c/d failed", "rtsp://*** failed"),
    ],
)
def test_only_private_addresses_are_replaced(text: str, scrubbed: str) -> None:
    """Times, versions and loopback stay; other addresses are replaced."""
    assert Scrubber([], {}).text(text) == scrubbed


def test_names_are_replaced_as_whole_words() -> None:
    """Common or short names, such as device `room` or account `an`, stay readable."""
    config = Config(
        device=DeviceSettings(id="room"), mqtt=MqttSettings(host="kit", username="an", prefix="emotion")
    )
    scrubber = scrubber_of(config)
    assert scrubber.text("emotion/room/state, kitchen, an answer of kit") == (
        "emotion/room/state, kitchen, an answer of broker-1"
    )
