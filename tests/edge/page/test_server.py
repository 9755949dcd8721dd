"""The web server: access, answers, and a port in use."""

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

from edge.config import parse_config
from edge.errors import ConfigError
from edge.health import Health
from edge.page.live_view import LiveView
from edge.page.server import Dashboard, read_token
from edge.page.snapshot import Snapshot
from edge.page.view import PageView
from edge.settings import DashboardSettings
from tests.edge.page.test_metrics import read, snapshot
from tests.helpers.brokers import free_port, wait_until


class StubView(PageView):
    """A view without a daemon, whose answers a test sets."""

    def __init__(self) -> None:
        self.live_view = LiveView()
        self.stuck_workers: list[str] = []
        self.has_broker = True

    @property
    def status(self) -> dict[str, Any]:
        return {"state": "running", "reasons": []}

    @property
    def is_connected(self) -> bool:
        return self.has_broker

    def stuck(self) -> list[str]:
        return self.stuck_workers

    def snapshot(self) -> Snapshot:
        return snapshot()


class Site:
    """A dashboard on a free port, and a client of it."""

    def __init__(self, *, token: str | None = None, host: str = "127.0.0.1") -> None:
        self.view = StubView()
        self.faults: list[tuple[str, str, str]] = []
        self.health = Health()
        self.health.subscribe(lambda *change: self.faults.append(change))
        name = f"[{host}]" if ":" in host else host
        self.root = f"{name}:{free_port()}"
        self.dashboard = Dashboard(
            DashboardSettings(bind=self.root), self.view, self.health, token, retry_s=0.02
        )

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
        """Return whether a server answers."""
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
    """Prometheus can read the metrics; health depends on the workers, readiness also on the broker."""
    with serving() as site:
        code, text = site.get("/metrics")
        assert code == 200
        assert read(text)["emotion_edge_uptime_seconds", ""] == 1.5
        assert site.get("/healthz") == (200, b'{"ok":true,"stuck":[]}')
        assert site.get("/readyz")[0] == 200
        site.view.has_broker = False
        code, text = site.get("/readyz")
        assert (code, json.loads(text)) == (503, {"ready": False, "connected": False, **site.view.status})
        site.view.has_broker, site.view.stuck_workers = True, ["camera"]
        assert site.get("/healthz") == (503, b'{"ok":false,"stuck":["camera"]}')
        assert site.get("/readyz")[0] == 503
        assert site.get("/nothing")[0] == 404


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz"])
def test_only_the_token_opens(path: str) -> None:
    """Every page requires the whole token, as Bearer; with it any host name is accepted."""
    with serving(token="känary-ß") as site:
        for wrong in ("", "Bearer ", "Bearer k", "känary-ß", "Basic känary-ß", "Bearer känary-ßx"):
            code, text = site.get(path, Authorization=wrong.encode().decode("latin-1"))
            assert code == 401
            assert b"nary" not in text
        right = "Bearer känary-ß".encode().decode("latin-1")
        assert site.get(path, Authorization=right, Host="pi.local")[0] == 200


def test_without_a_token_only_loopback_names_are_served() -> None:
    """A web page that resolves its own name to this device is refused."""
    with serving() as site:
        assert site.get("/metrics", Host="evil.example")[0] == 400
        assert site.get("/metrics", Host="localhost:1")[0] == 200


def test_ipv6_loopback() -> None:
    """`[::1]` is loopback like 127.0.0.1."""
    if not Path("/proc/net/if_inet6").exists():
        pytest.skip("this kernel has no IPv6")
    with serving(host="::1") as site:
        assert site.get("/metrics")[0] == 200


def test_port_in_use_degrades_and_is_tried_again() -> None:
    """`port_in_use` is reported once, and ends when the port is free."""
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
    """An empty address or `none` starts no server and is no fault."""
    site = Site()
    Dashboard(DashboardSettings(bind=bind), site.view, site.health).start()
    assert site.health.reasons == []
    assert not site.answers()


@pytest.mark.parametrize("bind", ["0.0.0.0:8770", "192.168.1.2:80", "[::]:8770", "pi.local:8770"])
def test_open_bind_needs_a_token(bind: str, tmp_path: Path) -> None:
    """An address that other machines can reach is refused without a token file."""
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
def test_invalid_bind_is_refused(bind: str) -> None:
    """The error names the key."""
    with pytest.raises(ConfigError, match="bind"):
        parse_config({"dashboard": {"bind": bind}})


def test_empty_token_file_is_refused(tmp_path: Path) -> None:
    """An empty token would admit every client."""
    token = tmp_path / "token"
    token.write_text(" \n")
    token.chmod(0o600)
    config = parse_config({"dashboard": {"token_file": str(token)}})
    with pytest.raises(ConfigError, match="empty"):
        read_token(config.dashboard)


def test_daemon_starts_without_the_web_stack() -> None:
    """The first prediction does not wait for imports that only the page or only audio needs."""
    code = (
        "import sys, edge.daemon\n"
        "late = {'starlette', 'uvicorn', 'prometheus_client', 'asyncio', 'scipy', 'python_speech_features'}\n"
        "assert not late & set(sys.modules), late & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
