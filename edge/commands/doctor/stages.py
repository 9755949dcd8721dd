"""`emotion-edge doctor`: tries every part of this device in stages; each failure says what to type.

It may run beside the daemon: it connects under a name of its own, opens no device that is switched off, and
takes a device that the daemon holds for one that works.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edge import __version__
from edge.config import DEFAULT_PATH, load_config
from edge.errors import EdgeError
from edge.files import ROOT
from edge.settings import Config
from edge.values import rfc3339

if TYPE_CHECKING:
    from edge.face.measurements import MeasurementTask

MAX_EXIT_CODE = 100
UNIT = "emotion-edge.service"
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
)

State = Literal["ok", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one stage found of one `subject`: a file, a backend, a broker; `remedy` only where it failed."""

    stage: str
    subject: str
    state: State
    detail: str
    remedy: str = ""


def failed(stage: str, subject: str, error: EdgeError) -> Finding:
    """Return the finding of an error, whose sentence is thing and value, then the remedy."""
    detail, _, remedy = plain(stage, subject, error).partition("; ")
    return Finding(stage, subject, "failed", detail, remedy or "`emotion-edge --verbose doctor` says more")


def plain(stage: str, subject: str, error: EdgeError) -> str:
    """Return the sentence of an error without the names that stand before it anyway."""
    return str(error).removeprefix(f"{stage} {subject}: ").removeprefix(f"{subject}: ")


def examine(path: Path | None, *, root: Path = ROOT) -> Iterator[Finding]:
    """Go through all stages with the configuration at `path`; what cannot be tried is told as skipped.

    Takes up to a minute where devices or brokers do not answer.
    """
    if path is None and DEFAULT_PATH.exists():
        path = DEFAULT_PATH
    try:
        config = load_config(path)
    except EdgeError as error:
        yield failed("config", str(path or "defaults"), error)
        yield from (Finding(stage, "", "skipped", "needs a config") for stage in STAGES[1:])
        return
    # Each imports what it tries: a library that is broken must not hide what the others find.
    from edge.commands.doctor.broker import examine_brokers
    from edge.commands.doctor.device import examine_device
    from edge.commands.doctor.sources import examine_sources

    yield Finding("config", str(path or "defaults and environment"), "ok", f"device.id {config.device.id}")
    pid = daemon_pid(root)
    if pid:
        yield Finding("daemon", "", "ok", f"runs as process {pid}")
    else:
        yield Finding("daemon", "", "skipped", "does not run, or this user may not see it")
    yield from examine_models(config)
    yield from examine_sources(config, is_running=pid != 0)
    yield from examine_device(config, root=root)
    yield from examine_brokers(config)


def report(findings: list[Finding]) -> dict[str, Any]:
    """Return what `doctor --json` prints."""
    return {
        "version": __version__,
        "time": rfc3339(datetime.now(UTC)),
        "failed": count_failed(findings),
        "findings": [asdict(finding) for finding in findings],
    }


def count_failed(findings: list[Finding]) -> int:
    """Return how many failed, `MAX_EXIT_CODE` at most, which is the exit code."""
    return min(MAX_EXIT_CODE, sum(finding.state == "failed" for finding in findings))


def daemon_pid(root: Path = ROOT) -> int:
    """Return the process that runs `emotion-edge run`, 0 where none is seen."""
    for file in sorted((root / "proc").glob("[0-9]*/cmdline")):
        try:
            words = file.read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it has ended
            continue
        is_ours = any(Path(word).name == "emotion-edge" for word in words[:3]) or words[1:3] == ["-m", "edge"]
        if is_ours and "run" in words and int(file.parent.name) != os.getpid():
            return int(file.parent.name)
    return 0


def adopt_service(root: Path = ROOT, environ: MutableMapping[str, str] = os.environ) -> None:
    """Take over the state, credentials, weights and settings of the running service, if we may read them.

    So `sudo emotion-edge doctor` examines what systemd runs, or would run. What is set already stays.
    """
    for cgroup in (root / "proc").glob("[0-9]*/cgroup"):
        with suppress(OSError):
            if not cgroup.read_text(encoding="utf-8").rstrip().endswith(f"/{UNIT}"):
                continue
            for line in cgroup.with_name("environ").read_bytes().decode(errors="replace").split("\0"):
                name, _, value = line.partition("=")
                if name in ("STATE_DIRECTORY", "CREDENTIALS_DIRECTORY") or name.startswith("EMOTION_EDGE_"):
                    environ.setdefault(name, value)
    if os.geteuid() == 0 and (root / "etc/systemd/system" / UNIT).exists():  # it is installed, but stopped
        for name, place in (("STATE_DIRECTORY", "var/lib"), ("CREDENTIALS_DIRECTORY", "etc")):
            if (root / place / "emotion-edge").is_dir():
                environ.setdefault(name, str(root / place / "emotion-edge"))


def examine_models(config: Config) -> Iterator[Finding]:
    """Check the detector's weights, then the models by their golden vectors on each backend wanted."""
    from edge.errors import DeviceError, ModelError
    from edge.inference.backends import candidate_backends
    from edge.inference.weights import DETECTOR, LANDMARKS, find_weights
    from edge.pipeline import opener

    for name in (DETECTOR, LANDMARKS):
        try:
            file = find_weights(name)
        except ModelError as error:
            yield failed("weights", name, error)
            continue
        if file is None:
            detail = "not there; an old method that overlooks many faces stands in"
            yield Finding("weights", name, "failed", detail, "`emotion-models fetch`")
        else:
            yield Finding("weights", name, "ok", str(file.parent))
    yield from _examine_small(config)
    wanted = config.inference.backend
    backends = dict.fromkeys(("cpu", *(candidate_backends() if wanted == "auto" else (wanted,))))
    for backend in backends:
        for task in ("face", "voice"):
            subject = f"{task} on {backend}"
            try:
                classifier = opener(config, task)(backend)
            except DeviceError as error:
                # `auto` passes over what does not work; who asked for it wants to know.
                finding = failed("models", subject, error)
                yield finding if wanted == backend else Finding("models", subject, "skipped", str(error))
            except ModelError as error:
                yield failed("models", subject, error)
            else:
                yield Finding("models", subject, "ok", f"{classifier.name}, golden vector right")


def _examine_small(config: Config) -> Iterator[Finding]:
    """Check the models that stay on the CPU by their golden vectors: of eyes, mouth, video and fusion."""
    from edge.errors import ModelError
    from edge.face.combination import open_visual
    from edge.face.measurements import MEASUREMENT_TASKS, open_measurement_model
    from edge.people.pooling import open_pool, pool_name

    def name_of_reading(task: MeasurementTask) -> str | None:
        classifier = open_measurement_model(config, task)
        return None if classifier is None else classifier.name

    def name_of_video() -> str | None:
        judge = open_visual(config, config.models.face)
        return None if judge is None else judge.video.name

    names: dict[str, Callable[[], str | None]] = {
        task: partial(name_of_reading, task) for task in MEASUREMENT_TASKS
    }
    names |= {"video": name_of_video, "fusion": lambda: pool_name(open_pool(config))}
    for task, name_of in names.items():
        subject = f"{task} on cpu"
        try:
            name = name_of()
        except ModelError as error:
            yield failed("models", subject, error)
            continue
        if name is None:
            yield Finding("models", subject, "skipped", "this config uses none")
        else:
            yield Finding("models", subject, "ok", f"{name}, golden vector right")
