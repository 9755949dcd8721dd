"""The web server: who may ask, what the answers are, and a port that is taken."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import edge.page.server
from edge.config import parse_config
from edge.delivery.outbox.queue import Counts
from edge.errors import ConfigError
from edge.health import Health
from edge.page.live_view import LiveView
from edge.page.metrics import Metrics, Snapshot
from edge.page.routes import Facts
from edge.page.server import Answers, Dashboard, read_token
from edge.settings import DashboardSettings
from tests.helpers.brokers import free_port, wait_until

STATUS = {"state": "running", "reasons": []}


def snapshot(**more: Any) -> Snapshot:
    """Return a daemon's numbers, as given and otherwise empty."""
    plain: dict[str, Any] = {
        "uptime_s": 1.5,
        "counters": {},
        "faults": [],
        "outbox": None,
        "is_connected": True,
        "live_dropped": 0,
        "latency_ms": {},
        "backends": {},
        "switches": {},
        "told": {},
    }
    return Snapshot(**{**plain, **more})


def read(text: bytes) -> dict[tuple[str, str], float]:
    """Parse an exposition as Prometheus does; give name and labels of each sample with its value."""
    return {
        (sample.name, " ".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


class Site:
    """A dashboard on a free port, whose answers a test may change, and a client."""

    def __init__(self, *, token: str | None = None, host: str = "127.0.0.1") -> None:
        self.stuck: list[str] = []
        self.is_connected = True
        self.faults: list[tuple[str, str, str]] = []
        self.health = Health()
        self.health.subscribe(lambda *change: self.faults.append(change))
        where = f"[{host}]" if ":" in host else host
        self.root = f"{where}:{free_port()}"
        answers = Answers(
            metrics=Metrics(snapshot).text,
            stuck=lambda: self.stuck,
            status=lambda: STATUS,
            is_connected=lambda: self.is_connected,
            facts=Facts(
                LiveView(),
                now=lambda _view: {},
                switch=lambda *_: False,
                preview=lambda _: False,
                has_boxes=True,
            ),
        )
        self.dashboard = Dashboard(DashboardSettings(bind=self.root), answers, self.health, token)

    def get(self, path: str, **headers: str) -> tuple[int, bytes]:
        """Return status code and body."""
        request = urllib.request.Request(f"http://{self.root}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def answers(self) -> bool:
        """Tell whether anybody answers at all."""
        try:
            return bool(self.get("/healthz"))
        except OSError:
            return False


@contextmanager
def serving(**more: Any) -> Iterator[Site]:
    """Serve while the block lasts."""
    site = Site(**more)
    site.dashboard.start()
    try:
        wait_until(site.answers, "an answer")
        yield site
    finally:
        site.dashboard.close()
        wait_until(lambda: not site.answers(), "the server to stop")


def test_metrics_health_and_readiness() -> None:
    """Prometheus can read the metrics; health follows the workers, readiness the broker, too."""
    with serving() as site:
        code, text = site.get("/metrics")
        assert code == 200
        assert read(text)["emotion_edge_uptime_seconds", ""] == 1.5
        assert site.get("/healthz") == (200, b'{"ok":true,"stuck":[]}')
        assert site.get("/readyz")[0] == 200
        site.is_connected = False
        code, text = site.get("/readyz")
        assert (code, json.loads(text)) == (503, {"ready": False, "connected": False, **STATUS})
        site.is_connected, site.stuck = True, ["camera"]
        assert site.get("/healthz") == (503, b'{"ok":false,"stuck":["camera"]}')
        assert site.get("/readyz")[0] == 503
        assert site.get("/nothing")[0] == 404


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz"])
def test_token_opens_and_nothing_else_does(path: str) -> None:
    """Every page wants the whole token, as Bearer; with it any host name will do."""
    with serving(token="känary-ß") as site:
        for wrong in ("", "Bearer ", "Bearer k", "känary-ß", "Basic känary-ß", "Bearer känary-ßx"):
            code, text = site.get(path, Authorization=wrong.encode().decode("latin-1"))
            assert code == 401
            assert b"nary" not in text
        right = "Bearer känary-ß".encode().decode("latin-1")
        assert site.get(path, Authorization=right, Host="pi.local")[0] == 200


def test_without_a_token_only_loopback_names_are_served() -> None:
    """A web page that led its own name here gets nothing."""
    with serving() as site:
        assert site.get("/metrics", Host="evil.example")[0] == 400
        assert site.get("/metrics", Host="localhost:1")[0] == 200


def test_ipv6_loopback() -> None:
    """`[::1]` is loopback like the other one."""
    if not Path("/proc/net/if_inet6").exists():
        pytest.skip("this kernel has no IPv6")
    with serving(host="::1") as site:
        assert site.get("/metrics")[0] == 200


def test_taken_port_degrades_and_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """`port_in_use` is told once, and ends when the port is free."""
    monkeypatch.setattr(edge.page.server, "RETRY_S", 0.02)
    site = Site()
    host, _, port = site.root.rpartition(":")
    with socket.create_server((host, int(port))):
        site.dashboard.start()
        wait_until(lambda: site.health.counters["dashboard_faults"] > 2, "some attempts")
        assert site.health.reasons == ["dashboard:port_in_use"]
        assert [fault[:2] for fault in site.faults] == [("dashboard", "port_in_use")]
        assert site.root in site.faults[0][2]
    wait_until(lambda: site.health.reasons == [], "the port")
    wait_until(site.answers, "an answer")
    site.dashboard.close()
    wait_until(lambda: not site.answers(), "the server to stop")


@pytest.mark.parametrize("bind", ["", "none"])
def test_none_serves_nothing(bind: str) -> None:
    """Off is off."""
    site = Site()
    Dashboard(DashboardSettings(bind=bind), site.dashboard.answers, site.health).start()
    assert site.health.reasons == []
    assert not site.answers()


@pytest.mark.parametrize("bind", ["0.0.0.0:8770", "192.168.1.2:80", "[::]:8770", "pi.local:8770"])
def test_open_bind_needs_a_token(bind: str, tmp_path: Path) -> None:
    """Whoever lets others in must say who; with a token file it is allowed."""
    with pytest.raises(ConfigError, match="token_file"):
        parse_config({"dashboard": {"bind": bind}})
    token = tmp_path / "token"
    token.write_text("canary\n")
    token.chmod(0o600)
    config = parse_config({"dashboard": {"bind": bind, "token_file": str(token)}})
    assert read_token(config.dashboard) == "canary"


@pytest.mark.parametrize(
    "bind", ["8770", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:70000", "a b:1"]
)
def test_bind_that_is_no_address(bind: str) -> None:
    """A sentence with the key, the value and an example."""
    with pytest.raises(ConfigError, match="bind"):
        parse_config({"dashboard": {"bind": bind}})


def test_empty_token_file_is_refused(tmp_path: Path) -> None:
    """An empty token would open the page to everybody."""
    token = tmp_path / "token"
    token.write_text(" \n")
    token.chmod(0o600)
    config = parse_config({"dashboard": {"token_file": str(token)}})
    with pytest.raises(ConfigError, match="empty"):
        read_token(config.dashboard)


def test_metrics_say_what_the_daemon_knows() -> None:
    """Each number of a snapshot arrives under its name, in seconds and bytes."""
    told = {
        "state": {"emotion": "fear", "confidence": 0.7, "present": True},
        "group/state": {"counts": {"fear": 2}},
        "fatigue/state": {"level": "tired", "score": 0.4, "perclos": 0.13},
    }
    now = snapshot(
        counters={"frames": 7, "audio_gap_samples": 8000, "camera_faults": 3},
        faults=["camera:no_device"],
        outbox=Counts(waiting=4, waiting_bytes=900, refused=1, dropped=2, last_sequence=11),
        latency_ms={"see": {"p50": 5.0, "p95": 8.0}},
        backends={"face": "gpu"},
        switches={"camera": True, "microphone": False},
        told=told,
    )
    got = read(Metrics(lambda: now).text())
    wanted = {
        ("frames_total", ""): 7,
        ("audio_lost_seconds_total", ""): 0.5,
        ("faults_total", "component=camera"): 3,
        ("fault", "component=camera reason=no_device"): 1,
        ("outbox_waiting", ""): 4,
        ("outbox_refused_total", ""): 1,
        ("outbox_dropped_total", ""): 2,
        ("latency_seconds", "quantile=0.95 stage=see"): 0.008,
        ("backend_info", "backend=gpu modality=face"): 1,
        ("enabled", "part=microphone"): 0,
        ("room_emotion", "emotion=fear"): 1,
        ("room_emotion", "emotion=anger"): 0,
        ("room_confidence", ""): 0.7,
        ("group_faces", "emotion=fear"): 2,
        ("fatigue_level", "level=tired"): 1,
        ("fatigue_level", "level=alert"): 0,
        ("fatigue_score", ""): 0.4,
        ("perclos", ""): 0.13,
    }
    assert {(f"emotion_edge_{name}", labels): value for (name, labels), value in wanted.items()}.items() <= (
        got.items()
    )
    assert sum(value for (name, _), value in got.items() if name == "emotion_edge_room_emotion") == 1


def test_metrics_say_no_more_than_was_told() -> None:
    """Where the policy kept the room and a small group back, no metric speaks of them."""
    text = Metrics(lambda: snapshot(told={"group/state": {"counts": None}})).text()
    assert b"emotion_edge_uptime_seconds" in text
    assert b"edge_room" not in text
    assert b"edge_group" not in text


def test_daemon_starts_without_the_web_stack() -> None:
    """The first prediction does not wait for imports that only the pages, or only sound, need."""
    code = (
        "import sys, edge.daemon\n"
        "late = {'starlette', 'uvicorn', 'prometheus_client', 'asyncio', 'scipy', 'python_speech_features'}\n"
        "assert not late & set(sys.modules), late & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
