"""Two real daemons with one device id: both name it in the status, and `doctor` does."""

from __future__ import annotations

import json
from pathlib import Path

from edge.commands.doctor.brokers import check_brokers
from edge.config import parse_config
from edge.settings import Config
from tests.helpers.brokers import Mosquitto, running, wait_until, watching
from tests.helpers.daemons import living

STATUS = "emotion/lab/status"


def config_of(directory: Path, port: int, camera: str) -> Config:
    """Return the configuration of a device; only one of the daemons has a camera that fails."""
    return parse_config(
        {
            "device": {"id": "lab"},
            "camera": {"source": camera},
            "microphone": {"source": "none"},
            "mqtt": {"port": port},
            "outbox": {"path": str(directory / "outbox.db")},
            "inference": {"backend": "cpu"},
            "dashboard": {"bind": ""},
        }
    )


def test_both_daemons_and_doctor_name_it(tmp_path: Path) -> None:
    """Each status has the reason `mqtt:duplicate_id`; doctor fails with the remedy."""
    broker = Mosquitto(tmp_path)
    configs = []
    for name, camera in (("first", "none"), ("second", "fake:unplug")):
        (tmp_path / name).mkdir()
        configs.append(config_of(tmp_path / name, broker.port, camera))
    with running(broker), watching(broker, STATUS) as watcher, living(configs[0]), living(configs[1]):

        def named() -> set[bool]:
            """Return of which daemons there is a status with the reason: has its camera failed or not."""
            reasons = [json.loads(payload)["reasons"] for payload in watcher.on(STATUS) if payload]
            return {any("camera" in r for r in some) for some in reasons if "mqtt:duplicate_id" in some}

        wait_until(lambda: named() == {True, False}, "both name it", timeout_s=90)
        found = {finding.stage: finding for finding in check_brokers(configs[0], has_daemon=True)}
        assert found["device_id"].state == "failed"
        assert "device.id lab: another client uses" in found["device_id"].detail
