"""The doctor reports each fault with a remedy, and its exit code is the number of failures."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import wave
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import trustme

from edge.commands.doctor.brokers import check_brokers
from edge.commands.doctor.checks import STAGES, check_everything
from edge.commands.doctor.device import check_conditions, check_outbox, check_permissions
from edge.commands.doctor.finding import MAX_EXIT_CODE, Finding, count_failed
from edge.commands.doctor.service import adopt_service, daemon_pid
from edge.commands.doctor.sources import check_source, check_sources
from edge.config import parse_config
from edge.delivery.embedded_broker import find_server
from edge.delivery.messages import load_schema
from edge.delivery.mqtt.connection import REMEDIES
from edge.errors import DeviceError
from edge.host.conditions import Conditions
from edge.inference.card import artifacts_directory
from edge.settings import Config, DeviceSettings, MqttSettings, OutboxSettings
from tests.edge.host.test_conditions import put
from tests.helpers.brokers import Broker, Mosquitto, free_port, running, settings_of, wait_until, watching
from tests.helpers.commands import run_edge
from tests.helpers.packets import closed_above, packet_path
from tests.helpers.sites import SiteMosquitto
from tests.system.test_system import daemon, environment

GIB = 1 << 30


def run_doctor(env: Mapping[str, str], *more: str) -> tuple[int, dict[str, Any]]:
    """Run the doctor as a process; return its exit code and its JSON, validated by the schema."""
    done = run_edge("doctor", "--json", *more, env=env)
    assert done.stdout, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    jsonschema.Draft202012Validator(load_schema("doctor")).validate(report)
    assert done.returncode == report["failed"]
    return done.returncode, report


def states(findings: list[Finding]) -> dict[str, str]:
    """Return the state of each stage; each stage must occur once."""
    assert len({finding.stage for finding in findings}) == len(findings)
    return {finding.stage: finding.state for finding in findings}


def test_healthy_device_on_both_brokers(broker: Broker, tmp_path: Path) -> None:
    """All checks that this machine can run are ok, and none leaves a file behind."""
    env = environment(broker.host, broker.port, tmp_path / "state") | {
        "EMOTION_EDGE__CAMERA__SOURCE": "fake:pattern",
        "EMOTION_EDGE__MICROPHONE__SOURCE": "fake:tone",
    }
    (tmp_path / "state").mkdir()
    _, report = run_doctor(env)
    findings = report["findings"]
    assert {entry["stage"] for entry in findings} == set(STAGES)
    # Clock and disk depend on the test machine.
    bad = [
        entry for entry in findings if entry["state"] == "failed" and entry["stage"] not in ("clock", "disk")
    ]
    assert bad == []
    checked = ("config", "weights", "models", "camera", "microphone", "outbox", "connect", "publish")
    assert all(entry["state"] == "ok" for entry in findings if entry["stage"] in (*checked, "read_back"))
    assert list((tmp_path / "state").iterdir()) == []


def test_doctor_does_not_disturb_the_daemon(mosquitto: Mosquitto, tmp_path: Path) -> None:
    """The daemon stays connected to the broker, and its outbox is read."""
    env = environment(mosquitto.host, mosquitto.port, tmp_path)
    with watching(mosquitto, "emotion/lab/#") as seen, daemon(env) as process:
        wait_until(lambda: seen.on("emotion/lab/availability") == [b"online"], "the daemon")
        wait_until(lambda: seen.on("emotion/lab/event"), "an event, and so an outbox")
        _, report = run_doctor(env)
        by_stage = {entry["stage"]: entry for entry in report["findings"]}
        assert "process" in by_stage["daemon"]["detail"]
        assert "waiting" in by_stage["outbox"]["detail"]
        assert by_stage["read_back"]["state"] == by_stage["device_id"]["state"] == "ok"
        assert seen.on("emotion/lab/availability") == [b"online"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_bad_config_is_the_only_failure(tmp_path: Path) -> None:
    """A bad config is reported as one failure, and every other check is skipped."""
    path = tmp_path / "config.toml"
    path.write_text("version = 1\n[camera]\nfsp = 3\n")
    code, report = run_doctor(os.environ, "--config", str(path))
    assert code == 1
    first, *rest = report["findings"]
    assert (first["stage"], first["remedy"]) == ("config", "did you mean fps?")
    assert {entry["state"] for entry in rest} == {"skipped"}


def test_exit_code_is_capped() -> None:
    """More failures than an exit code can hold are reported as the maximum."""
    findings = [Finding("tcp", str(n), "failed", "refused", "start it") for n in range(MAX_EXIT_CODE + 1)]
    assert count_failed(findings) == MAX_EXIT_CODE
    assert count_failed(findings[:-2]) == MAX_EXIT_CODE - 1


def test_findings_as_text(tmp_path: Path) -> None:
    """A line for each finding, the remedy below a failed one, then the counts."""
    env = environment("127.0.0.1", free_port(), tmp_path) | {
        "EMOTION_EDGE__CAMERA__SOURCE": "none",
        "EMOTION_EDGE__MICROPHONE__SOURCE": "none",
    }
    done = run_edge("doctor", env=env)
    lines = done.stdout.splitlines()
    tcp = next(n for n, line in enumerate(lines) if line.startswith("failed   tcp"))
    assert lines[tcp + 1].strip() == "-> nothing listens on that port; start the broker or check mqtt.port"
    assert f"{done.returncode} failed" in lines[-1]


def test_missing_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The remedy is the command that fetches them."""
    monkeypatch.setenv("EMOTION_EDGE_WEIGHTS", str(tmp_path))
    found = [f for f in check_everything(write_config(tmp_path), root=tmp_path) if f.stage == "weights"]
    assert [(f.state, f.remedy) for f in found] == [("failed", "`emotion-models fetch`")] * 2


def test_damaged_model(tmp_path: Path) -> None:
    """A changed byte fails one model and not the other."""
    shutil.copytree(artifacts_directory(), tmp_path / "artifacts")
    file = tmp_path / "artifacts" / "voice-lstm.int8.tflite"
    file.write_bytes(file.read_bytes()[:-1] + b"\0\0")
    path = write_config(tmp_path, f'[models]\ndirectory = "{tmp_path / "artifacts"}"\n')
    found = {f.subject: f for f in check_everything(path, root=tmp_path) if f.stage == "models"}
    assert found["face on cpu"].state == "ok"
    assert found["voice on cpu"].state == "failed"
    assert "SHA-256" in found["voice on cpu"].detail


def test_missing_delegate(tmp_path: Path) -> None:
    """A missing delegate fails for both models, and the CPU fallback is checked too."""
    path = write_config(tmp_path, f'[inference]\nbackend = "delegate:{tmp_path}/none.so"\n')
    found = {f.subject: f.state for f in check_everything(path, root=tmp_path) if f.stage == "models"}
    backend = f"delegate:{tmp_path}/none.so"
    assert found == {
        "face on cpu": "ok",
        "voice on cpu": "ok",
        "eyes on cpu": "ok",
        "mouth on cpu": "ok",
        "video on cpu": "ok",
        "fusion on cpu": "ok",
        f"face on {backend}": "failed",
        f"voice on {backend}": "failed",
    }


def write_config(directory: Path, more: str = "") -> Path:
    """Write a configuration without devices and with the address of a missing broker."""
    path = directory / "doctor.toml"
    path.write_text(
        'version = 1\n[camera]\nsource = "none"\n[microphone]\nsource = "none"\n'
        f'[mqtt]\nport = {free_port()}\n[outbox]\npath = "{directory}/state/outbox.db"\n{more}'
    )
    return path


def sources(tmp_path: Path, camera: str, microphone: str) -> dict[str, Finding]:
    """Return the findings for two sources."""
    config = parse_config(
        {
            "camera": {"source": camera},
            "microphone": {"source": microphone},
            "outbox": {"path": str(tmp_path / "outbox.db")},
        }
    )
    return {finding.stage: finding for finding in check_sources(config, is_running=False)}


@pytest.mark.parametrize(
    ("token", "state", "detail"),
    [
        ("fake:pattern", "ok", "640x480"),
        ("fake:black", "failed", "black"),
        ("v4l2:/dev/none", "failed", "no such device"),
        ("none", "skipped", "not configured"),
        ("fake:unplug?after=0", "failed", "stopped sending"),
    ],
)
def test_camera(tmp_path: Path, token: str, state: str, detail: str) -> None:
    """One frame is read and checked; every failure has a remedy."""
    found = sources(tmp_path, token, "none")["camera"]
    assert (found.state, detail in found.detail) == (state, True), found
    assert bool(found.remedy) == (state == "failed")


@pytest.mark.parametrize(
    ("token", "state", "detail"),
    [
        ("fake:tone", "ok", "-13 dB"),
        ("fake:silence", "failed", "silence"),
        ("alsa:CARD=None", "failed", "no such sound card"),
        ("none", "skipped", "not configured"),
    ],
)
def test_microphone(tmp_path: Path, token: str, state: str, detail: str) -> None:
    """One second is measured: a sine at 0.3 of full scale has -13.5 dB."""
    found = sources(tmp_path, "none", token)["microphone"]
    assert (found.state, detail in found.detail) == (state, True), found
    assert bool(found.remedy) == (state == "failed")


def test_switched_off_source_is_not_opened(tmp_path: Path) -> None:
    """The doctor respects the switches and skips the source."""
    (tmp_path / "switches-room.json").write_text('{"camera": false, "microphone": true}')
    found = sources(tmp_path, "fake:pattern", "fake:tone")
    assert (found["camera"].state, found["microphone"].state) == ("skipped", "ok")


@pytest.mark.parametrize(("is_running", "state"), [(True, "ok"), (False, "failed")])
def test_busy_camera(is_running: bool, state: str) -> None:
    """A busy camera is ok while the daemon runs, and a failure otherwise."""

    def open_it() -> tuple[str, str]:
        raise DeviceError("v4l2:/dev/video0: in use by 812 (motion); stop that program", reason="busy")

    found = check_source("camera", "v4l2:/dev/video0", open_it, is_running=is_running)
    assert (found.state, found.remedy) == (state, "" if is_running else "stop that program")


def test_silent_microphone(tmp_path: Path) -> None:
    """Audio of zeros only means a muted microphone."""
    with wave.open(str(tmp_path / "zeros.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(2 * 32_000))
    found = sources(tmp_path, "none", f"file:{tmp_path / 'zeros.wav'}")["microphone"]
    assert (found.state, found.detail) == ("failed", "silent as if muted")


def test_unresponsive_camera(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A camera that accepts the connection and sends nothing fails after the time limit."""
    monkeypatch.setattr("edge.commands.doctor.sources.FIRST_S", 0.5)
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        found = sources(tmp_path, f"http://127.0.0.1:{server.getsockname()[1]}/", "none")["camera"]
    assert (found.state, "has not answered for 0.5 s" in found.detail) == ("failed", True), found


def connections(mqtt: MqttSettings, tmp_path: Path, *, has_daemon: bool = False) -> list[Finding]:
    """Return the findings for the brokers; `has_daemon`: a daemon runs on this machine."""
    config = Config(
        device=DeviceSettings(id="lab"), mqtt=mqtt, outbox=OutboxSettings(path=tmp_path / "outbox.db")
    )
    return list(check_brokers(config, has_daemon=has_daemon))


def until(stage: str) -> dict[str, str]:
    """Return the states of all stages if `stage` fails, without TLS."""
    order = ("dns", "tcp", "tls", "connect", "publish", "read_back", "device_id")
    at = order.index(stage)
    found = {name: "ok" if n < at else "skipped" for n, name in enumerate(order)}
    return found | {"tls": "skipped", stage: "failed"}


FINE, DUPLICATE = b'{"reasons": []}', b'{"reasons": ["mqtt:duplicate_id"]}'


@pytest.mark.parametrize(
    ("availability", "status", "has_daemon", "state"),
    [
        (b"", b"", False, "ok"),
        (b"offline", FINE, False, "ok"),
        (b"online", FINE, True, "ok"),
        (b"online", FINE, False, "failed"),
        (b"online", DUPLICATE, True, "failed"),
    ],
    ids=["never seen", "offline", "own daemon", "other daemon", "both"],
)
def test_another_daemon_with_this_device_id(
    mosquitto: Mosquitto, tmp_path: Path, availability: bytes, status: bytes, has_daemon: bool, state: str
) -> None:
    """A daemon that is online while none runs here, and a status that names the fault, are both named."""
    with watching(mosquitto) as client:
        client.publish("emotion/lab/availability", availability, retain=True)
        client.publish("emotion/lab/status", status, retain=True)
        found = connections(settings_of(mosquitto), tmp_path, has_daemon=has_daemon)
        findings = {finding.stage: finding for finding in found}
    assert findings["device_id"].state == state
    assert findings["device_id"].remedy == ("give each device its own" if state == "failed" else "")


def test_unknown_host_name(tmp_path: Path) -> None:
    """DNS fails, and the stages after it are skipped."""
    assert states(connections(MqttSettings(host="broker.invalid"), tmp_path)) == until("dns")


def test_closed_port(tmp_path: Path) -> None:
    """TCP fails, and the stages after it are skipped."""
    assert states(connections(MqttSettings(port=free_port()), tmp_path)) == until("tcp")


@pytest.mark.parametrize(("limit", "state"), [(1500, "failed"), (3000, "failed"), (20_000, "ok")])
def test_maximum_packet_size_of_the_broker(tmp_path: Path, limit: int, state: str) -> None:
    """A broker that does not take the announcement fails, with the size, its limit and the setting."""
    with running(Mosquitto(tmp_path, f"max_packet_size {limit}")) as broker:
        findings = {finding.stage: finding for finding in connections(settings_of(broker), tmp_path)}
    assert findings["publish"].state == state
    if state == "failed":
        assert f"the broker takes {limit}" in findings["publish"].detail
        assert "max_packet_size" in findings["publish"].remedy


@pytest.mark.parametrize(("limit", "state"), [(1500, "failed"), (3000, "failed"), (20_000, "ok")])
def test_maximum_that_no_broker_states(mosquitto: Mosquitto, tmp_path: Path, limit: int, state: str) -> None:
    """A proxy that closes the connection on large messages is found with probes of their size."""
    with packet_path(mosquitto.host, mosquitto.port, closed_above(limit)) as path:
        findings = {finding.stage: finding for finding in connections(path.settings, tmp_path)}
    assert findings["publish"].state == state
    if state == "failed":
        assert "the connection ended at that size (closed)" in findings["publish"].detail
        assert "max_packet_size" in findings["publish"].remedy


def test_broker_without_retained_messages(tmp_path: Path) -> None:
    """The remedy names the setting of the broker."""
    with running(Mosquitto(tmp_path, "retain_available false")) as broker:
        found = connections(settings_of(broker), tmp_path)
    assert states(found) == until("connect")
    assert [f.remedy for f in found if f.stage == "connect"] == [REMEDIES["retain_not_supported"]]


def test_each_of_several_brokers_is_checked(mosquitto: Mosquitto, tmp_path: Path) -> None:
    """A failing broker does not prevent the checks of the next one."""
    hosts = (f"127.0.0.1:{free_port()}", f"127.0.0.1:{mosquitto.port}")
    found = connections(MqttSettings(host=hosts), tmp_path)
    for host, stage, state in ((hosts[0], "tcp", "failed"), (hosts[1], "read_back", "ok")):
        assert [f.state for f in found if f.subject == host and f.stage == stage] == [state]


@pytest.mark.parametrize(
    ("user", "password", "stage"),
    [("lab", "right", ""), ("lab", "wrong", "connect"), ("other", "right", "publish")],
)
def test_site_broker(tmp_path: Path, user: str, password: str, stage: str) -> None:
    """A wrong password fails at CONNECT, a user without write permission at PUBLISH."""
    secret = tmp_path / "password"
    secret.write_text(password)
    secret.chmod(0o600)
    with running(SiteMosquitto(tmp_path, {"lab": "right", "other": "right"})) as broker:
        settings = MqttSettings(port=broker.port, username=user, password_file=secret)
        found = connections(settings, tmp_path)
    if stage:
        assert states(found) == until(stage)
        assert all(f.remedy for f in found if f.state == "failed")
    else:
        assert set(states(found).values()) == {"ok", "skipped"}


@contextmanager
def refusing_nats(directory: Path) -> Iterator[int]:
    """Run a NATS server, which has MQTT 3.1.1, that drops the probe; yield its port."""
    port = free_port()
    (directory / "nats.conf").write_text(
        f'server_name: one\nlisten: "127.0.0.1:-1"\njetstream {{ store_dir: "{directory}/js" }}\n'
        f'mqtt {{ listen: "127.0.0.1:{port}" }}\n'
        "accounts { A { jetstream: enabled, users: [{ user: lab, password: right, "
        'permissions: { publish: { deny: ["emotion.lab.>"] } } }] } }\n'
    )
    process = subprocess.Popen(
        [find_server(), "-c", directory / "nats.conf"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        settings = MqttSettings(port=port)
        wait_until(lambda: states(connections(settings, directory))["tcp"] == "ok", "the server")
        yield port
    finally:
        process.terminate()
        process.wait(10)


def test_broker_that_drops_publications_silently(tmp_path: Path) -> None:
    """With MQTT 3.1.1, only reading back detects a dropped publication."""
    secret = tmp_path / "password"
    secret.write_text("right")
    secret.chmod(0o600)
    with refusing_nats(tmp_path) as port:
        found = connections(MqttSettings(port=port, username="lab", password_file=secret), tmp_path)
    assert states(found) == until("read_back")


@pytest.mark.parametrize("case", ["trusted", "expired", "unknown-authority", "wrong-name", "ends-soon"])
def test_certificates(tmp_path: Path, case: str) -> None:
    """TLS fails for an untrusted certificate and for one that expires soon."""
    authority, now = trustme.CA(), datetime.now(UTC)
    issued = authority.issue_cert(
        "other.example" if case == "wrong-name" else "localhost",
        not_before=now - timedelta(days=30),
        not_after=now + timedelta(days={"expired": -1, "ends-soon": 3}.get(case, 30)),
    )
    certificate, key, known = tmp_path / "broker.pem", tmp_path / "broker.key", tmp_path / "ca.pem"
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(key)
    (trustme.CA() if case == "unknown-authority" else authority).cert_pem.write_to_path(known)
    secret = tmp_path / "password"
    secret.write_text("right")
    secret.chmod(0o600)
    with running(SiteMosquitto(tmp_path, {"lab": "right"}, certificate=(certificate, key))) as broker:
        settings = MqttSettings(
            host="localhost",
            port=broker.port,
            tls=True,
            ca_file=known,
            username="lab",
            password_file=secret,
        )
        found = states(connections(settings, tmp_path))
    assert found["tls"] == ("ok" if case == "trusted" else "failed")
    assert found["read_back"] == ("ok" if case == "trusted" else "skipped")


def test_unwritable_outbox() -> None:
    """A path below a file fails with a remedy."""
    found = check_outbox(Path("/dev/null/outbox.db"))
    assert (found.state, "outbox.path" in found.remedy) == ("failed", True)


def test_outbox_file_that_is_not_a_database(tmp_path: Path) -> None:
    """The file is reported and not changed."""
    path = tmp_path / "outbox.db"
    path.write_bytes(b"not a database" * 100)
    assert check_outbox(path).state == "failed"
    assert path.read_bytes() == b"not a database" * 100


CASES: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({}, dict.fromkeys(("disk", "clock", "power", "temperature"), "skipped")),
    ({"disk_free_bytes": GIB}, {"disk": "ok"}),
    ({"disk_free_bytes": 1 << 20}, {"disk": "failed"}),
    ({"is_clock_synchronised": True}, {"clock": "ok"}),
    ({"is_clock_synchronised": False}, {"clock": "failed"}),
    ({"throttled": 0}, {"power": "ok"}),
    ({"throttled": 0x1}, {"power": "failed"}),
    ({"throttled": 0x10000}, {"power": "failed"}),
    ({"temperature_c": 77.9}, {"temperature": "ok"}),
    ({"temperature_c": 78.0}, {"temperature": "failed"}),
]


@pytest.mark.parametrize(("conditions", "wanted"), CASES)
def test_conditions(conditions: dict[str, Any], wanted: dict[str, str]) -> None:
    """Reported values are checked; a value that the device does not report is skipped."""
    found = list(check_conditions(Conditions(**conditions), 78.0))
    assert {stage: states(found)[stage] for stage in wanted} == wanted
    assert all(bool(finding.remedy) == (finding.state == "failed") for finding in found)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user without permissions")
def test_device_nodes_without_permission(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The remedy names the group to join for each part that the config uses."""
    root = tmp_path_factory.mktemp("machine")
    temporary = Path(tempfile.gettempdir())
    for folder in (root, *root.parents):
        if folder.is_relative_to(temporary) and folder != temporary:
            folder.chmod(0o755)  # pytest gives its folders to their owner only
    for node in ("dev/video0", "dev/snd/pcmC1D0c"):
        put(root, node, "").chmod(0)
    put(root, "dev/dri/renderD128", "").chmod(0o666)
    put(root, "sys/bus/usb/devices/2-1/idVendor", "18d1")
    put(root, "sys/bus/usb/devices/2-1/idProduct", "9302")
    put(root, "sys/bus/usb/devices/2-1/busnum", "2")
    put(root, "sys/bus/usb/devices/2-1/devnum", "3")
    put(root, "dev/bus/usb/002/003", "").chmod(0)
    os.seteuid(65534)
    try:
        config = parse_config({"microphone": {"source": "none"}})
        found = {finding.subject: finding for finding in check_permissions(config, root)}
    finally:
        os.seteuid(0)
    assert found["camera"].state == "failed"
    assert found["camera"].remedy.startswith("`sudo usermod -aG video $USER`")
    assert found["microphone"].state == "skipped"
    assert "-aG plugdev" in found["accelerator"].remedy


def test_root_checks_the_environment_of_the_service(tmp_path: Path) -> None:
    """State, credentials and settings of the unit's process are used unless they are set already."""
    put(tmp_path, "proc/812/cgroup", "0::/system.slice/emotion-edge.service\n")
    put(
        tmp_path,
        "proc/812/environ",
        "STATE_DIRECTORY=/var/lib/emotion-edge\0HOME=/\0EMOTION_EDGE__MQTT__HOST=b=c\0EMOTION_EDGE_WEIGHTS=/w\0",
    )
    put(tmp_path, "proc/813/cgroup", "0::/user.slice/session-1.scope\n")
    put(tmp_path, "proc/813/environ", "EMOTION_EDGE__DEVICE__ID=other\0")
    put(tmp_path, "proc/814/cgroup", "0::/system.slice/emotion-edge.service\n")  # ended meanwhile
    environ = {"EMOTION_EDGE_WEIGHTS": "/mine"}
    adopt_service(tmp_path, environ)
    assert environ == {
        "EMOTION_EDGE_WEIGHTS": "/mine",
        "STATE_DIRECTORY": "/var/lib/emotion-edge",
        "EMOTION_EDGE__MQTT__HOST": "b=c",
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="only root checks the service of another user")
def test_root_checks_a_stopped_service(tmp_path: Path) -> None:
    """With the unit installed, state and secrets are in the directories that systemd uses."""
    state, secrets = tmp_path / "var/lib/emotion-edge", tmp_path / "etc/emotion-edge"
    state.mkdir(parents=True)
    secrets.mkdir(parents=True)
    environ: dict[str, str] = {}
    adopt_service(tmp_path, environ)
    assert environ == {}
    put(tmp_path, "etc/systemd/system/emotion-edge.service", "[Unit]\n")
    adopt_service(tmp_path, environ)
    assert environ == {"STATE_DIRECTORY": str(state), "CREDENTIALS_DIRECTORY": str(secrets)}


@pytest.mark.parametrize(
    ("command", "pid"),
    [
        ("/opt/venv/bin/python\0/opt/venv/bin/emotion-edge\0run\0--config\0x", 812),
        ("/usr/bin/python3\0-m\0edge\0run\0", 812),
        ("/opt/venv/bin/python\0/opt/venv/bin/emotion-edge\0doctor\0", 0),
        ("vi\0run\0", 0),
    ],
)
def test_daemon_is_found_by_its_command_line(tmp_path: Path, command: str, pid: int) -> None:
    """Only `emotion-edge run` counts, in each form of its command line."""
    put(tmp_path, "proc/812/cmdline", command)
    assert daemon_pid(tmp_path) == pid
