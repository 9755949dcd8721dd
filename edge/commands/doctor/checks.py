"""All checks of `emotion-edge doctor` in order.

The doctor may run beside the daemon: it connects to the broker under its own client id, opens no device that
is switched off, and counts a device that the daemon holds as working.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edge.commands.doctor.finding import Finding, failed
from edge.commands.doctor.service import daemon_pid
from edge.config import DEFAULT_PATH, load_config
from edge.errors import EdgeError
from edge.files import ROOT

STAGES = (
    "config",
    "daemon",
    "weights",
    "models",
    "camera",
    "microphone",
    "permissions",
    "outbox",
    "disk",
    "clock",
    "power",
    "temperature",
    "dns",
    "tcp",
    "tls",
    "connect",
    "publish",
    "read_back",
    "device_id",
)


def check_everything(path: Path | None, *, root: Path = ROOT) -> Iterator[Finding]:
    """Run all checks with the configuration at `path`; report those that cannot run as skipped.

    Takes up to a minute where devices or brokers do not answer.
    """
    if path is None and DEFAULT_PATH.exists():
        path = DEFAULT_PATH
    try:
        config = load_config(path)
    except EdgeError as error:
        yield failed("config", str(path or "defaults"), error)
        yield from (Finding(stage, "", "skipped", "needs a valid config") for stage in STAGES[1:])
        return
    yield Finding("config", str(path or "defaults and environment"), "ok", f"device.id {config.device.id}")
    pid = daemon_pid(root)
    yield check_daemon(pid)

    # Imported one by one: a broken library must not hide the findings of the checks before it.
    from edge.commands.doctor.models import check_models, check_weights

    yield from check_weights()
    yield from check_models(config)
    from edge.commands.doctor.sources import check_sources

    yield from check_sources(config, is_running=pid != 0)
    from edge.commands.doctor.device import check_device

    yield from check_device(config, root=root)
    from edge.commands.doctor.brokers import check_brokers

    yield from check_brokers(config, has_daemon=bool(pid))


def check_daemon(pid: int) -> Finding:
    """Report whether the daemon runs; a stopped daemon is not a failure."""
    if pid:
        return Finding("daemon", "", "ok", f"runs as process {pid}")
    return Finding("daemon", "", "skipped", "does not run, or this user may not see it")
