"""A camera's password, in every form of an address, is in nothing that leaves the daemon or a command."""

from __future__ import annotations

import io
import json
import socket
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path

import psutil
import pytest

from edge.__main__ import main
from tests.helpers.brokers import Mosquitto, free_port, running, wait_until, watching
from tests.helpers.commands import run_here
from tests.helpers.refusing_server import refusing_server
from tests.system.test_security_daemon import Daemon, daemon

CANARY = "canary7Qx"
PAGE = ("/", "/page.js", "/page.css", "/metrics", "/healthz", "/readyz", "/preview.jpg")
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("config", "show"),
    ("config", "check"),
    ("outbox", "show", "--json"),
    ("discovery", "show"),
    ("integration", "node-red"),
    ("analyze", "missing.jpg", "--json"),
)
# The canary is on both sides of each special character: half a password is a leak, too.
VALID = {
    "user-info": "rtsp://me:{c}@127.0.0.1:{port}/1",
    "at": "rtsp://me:{c}@{c}@127.0.0.1:{port}/1",
    "slash": "rtsp://me:{c}/{c}@127.0.0.1:{port}/1",
    "hash": "rtsp://me:{c}#{c}@127.0.0.1:{port}/1",
    "percent": "rtsp://me:{c}%40%2F{c}@127.0.0.1:{port}/1",
    "question": "rtsp://me:{c}?{c}@127.0.0.1:{port}/1",
    "pwd": "http://127.0.0.1:{port}/v.mjpg?user=me&pwd={c}",
    "password": "http://127.0.0.1:{port}/v.mjpg?password={c}",
    "other-value": "rtsp://127.0.0.1:{port}/1?auth={c}&{c}",
    "path": "rtsp://127.0.0.1:{port}/user=me&password={c}&channel=1",
    "upper-case": "RTSP://me:{c}@127.0.0.1:{port}/1",
    "snapshot": "http://me:{c}@127.0.0.1:{port}/snapshot.jpg",
    "refused-rtsp": "rtsp://me:{c}@127.0.0.1:{refused}/1",
    "refused-http": "http://me:{c}@127.0.0.1:{refused}/video?token={c}",
    "pipeline": "gstreamer:rtspsrc location=rtsp://me:{c}@127.0.0.1:{port}/1 user-pw={c} ! decodebin",
    "running-pipeline": "gstreamer:videotestsrc is-live=true ! video/x-raw,width=64,height=48 "
    "! identity name=user-pw={c}",
}
INVALID = {
    "mistyped": ("camera.source", "rstp://me:{c}@127.0.0.1:{port}/1"),
    "no-scheme": ("camera.source", "me:{c}@127.0.0.1:{port}/1"),
    "space": ("camera.source", "rtsp://me:{c} {c}@127.0.0.1:{port}/1"),
    "mistyped-pipeline": ("camera.source", "gstreamr:rtspsrc user-id=me user-pw={c}"),
    "microphone": ("microphone.source", "rtsp://me:{c}@127.0.0.1:{port}/1"),
    "microphone-query": ("microphone.source", "http://127.0.0.1:{port}/audio?pwd={c}"),
    "broker": ("mqtt.host", "mqtt://me:{c}@127.0.0.1:{port}"),
}


@dataclass(slots=True)
class Evidence:
    """Everything that was seen, by the place where it was seen."""

    places: dict[str, bytes] = field(default_factory=dict)

    def add(self, place: str, content: bytes | str) -> None:
        content = content.encode() if isinstance(content, str) else content
        self.places[place] = self.places.get(place, b"") + content

    def add_processes(self, parent: int) -> None:
        """Add arguments of a process and its children, and the environment of the children."""
        process = psutil.Process(parent)
        for number, child in enumerate([process, *process.children(recursive=True)]):
            try:
                self.add("argv", " ".join(child.cmdline()))
                self.add("environment", str(child.environ()) if number else "")
            except psutil.Error:
                continue  # it has ended

    def add_page(self, port: int) -> None:
        """Add what the page and its event stream send."""
        for path in PAGE:
            self.add(f"page {path}", _get(port, path))
        connection = HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/stream", headers={"X-Session": "canary-test"})
        answer = connection.getresponse()
        assert answer.status == 200
        for _ in range(4):
            self.add("page /stream", answer.readline())
        connection.close()
        assert b"data:" in self.places["page /stream"]

    def add_files(self, directory: Path) -> None:
        """Add the files below a directory, the configuration aside."""
        for path in directory.rglob("*"):
            if path.is_file() and path.name != "config.toml":
                self.add(str(path), path.read_bytes())

    def add_command(self, *words: str, config: Path) -> int:
        """Run a command in this process; add its output; return its exit code."""
        done = run_here(main, *words, "--config", config)
        self.add(" ".join(words), done.stdout + done.stderr)
        return done.returncode

    def leaks(self) -> list[str]:
        """Return the places of the canary, whole or in a common encoding."""
        spellings = (CANARY.encode(), CANARY.encode().hex().encode(), json.dumps(CANARY).encode())
        return [place for place, text in self.places.items() if any(word in text for word in spellings)]


def _get(port: int, path: str) -> bytes:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path, headers={"X-Session": "canary-test"})
    answer = connection.getresponse()
    content = str(answer.getheaders()).encode() + answer.read()
    connection.close()
    return content


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _config(key: str, value: str, *, broker: int, page: int) -> str:
    values = {
        "camera.source": "none",
        "microphone.source": "none",
        "mqtt.host": "127.0.0.1",
        key: value,
    }
    lines = "".join(f"{name} = {json.dumps(text)}\n" for name, text in values.items())
    return f'{lines}mqtt.port = {broker}\ndevice.id = "kitchen"\ndashboard.bind = "127.0.0.1:{page}"\n'


def _commands(evidence: Evidence, config: Path, directory: Path) -> list[int]:
    """Run the commands that read the configuration, and open the bundle; return their exit codes."""
    codes = [evidence.add_command(*words, config=config) for words in COMMANDS]
    bundle = directory / "bundle.tar.gz"
    evidence.add_command("doctor", "--json", "--bundle", str(bundle), config=config)
    with tarfile.open(fileobj=io.BytesIO(bundle.read_bytes())) as archive:
        for member in archive.getmembers():
            content = archive.extractfile(member)
            assert content is not None
            evidence.add(f"bundle {member.name}", content.read())
    bundle.unlink()
    return codes


def _until(condition: Callable[[], object], what: str, evidence: Evidence, device: Daemon) -> None:
    """Wait, and add the processes all the time: a child may live for a moment only."""

    def holds() -> bool:
        evidence.add_processes(device.process.pid)
        time.sleep(0.05)
        return bool(condition())

    wait_until(holds, what, timeout_s=60)


@pytest.mark.parametrize("form", VALID)
def test_password_of_a_camera_is_nowhere(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon runs with a camera that does not answer or refuses; the canary is found in no place."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "daemon"))
    evidence = Evidence()
    broker, page = Mosquitto(tmp_path), free_port()
    with refusing_server() as refused, running(broker), watching(broker, "#") as watcher:
        source = VALID[form].format(c=CANARY, port=free_port(), refused=refused)
        text = _config("camera.source", source, broker=broker.port, page=page)
        with daemon(tmp_path / "daemon", text) as device:
            status = "emotion/kitchen/status"
            if form == "running-pipeline":
                _until(lambda: watcher.on("emotion/kitchen/face/state"), "a frame", evidence, device)
                assert b"gst_launch" in evidence.places["argv"]
            else:
                status = "emotion/kitchen/status"
                _until(lambda: any(b"camera:" in m for m in watcher.on(status)), "a fault", evidence, device)
            _until(lambda: _listens(page), "the page", evidence, device)
            evidence.add_page(page)
            codes = _commands(evidence, device.directory / "config.toml", tmp_path)
            assert codes[:2] == [0, 0], evidence.places["config check"]
            evidence.add_processes(device.process.pid)
        evidence.add("log", device.log)
        for seen in watcher.seen:
            evidence.add(f"message {seen.topic}", seen.payload)
    evidence.add_files(device.directory)
    assert evidence.leaks() == []
    assert b"Traceback" not in device.log
    masked = evidence.places["config show"]
    assert b"***" in masked  # it was there, and is masked
    assert any("bundle" in place for place in evidence.places)


@pytest.mark.parametrize("form", INVALID)
def test_password_in_a_refused_address_is_nowhere(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon ends with exit code 3, and neither it nor a command prints the canary."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "daemon"))
    evidence = Evidence()
    key, value = INVALID[form]
    text = _config(key, value.format(c=CANARY, port=free_port()), broker=free_port(), page=free_port())
    with daemon(tmp_path / "daemon", text) as device:
        assert device.process.wait(30) == 3
        codes = _commands(evidence, device.directory / "config.toml", tmp_path)
    assert codes[:2] == [3, 3]
    evidence.add("log", device.log)
    evidence.add_files(device.directory)
    assert evidence.leaks() == []
    assert b"Traceback" not in device.log
    assert key.encode() in device.log
