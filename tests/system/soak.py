"""Runs the daemon for long, fast and among failures, and reports what grows and what is lost.

`make soak MINUTES=30`, or `python -m tests.system.soak --minutes 30 [--seed 7] [--json]`: the shipped clip at
twenty times its speed as camera and microphone, whose files vanish at random, a mosquitto that is killed and
started again, and a client of the status page. The exit code is 1 if anything grew too much or was lost.

To find out what grows: `--without camera,microphone,broker,page` leaves those failures, or the page, out;
`--samples FILE` writes every sample as CSV. The report lists the growth by kind of memory.
"""

from __future__ import annotations

import argparse
import dataclasses
import http.client
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from rich.console import Console
from rich.progress import Progress

from edge.delivery.outbox.queue import Outbox
from edge.settings import Config, DeviceSettings, OutboxSettings
from edge.sources.replay import clip_path
from tests.chaos.audit import Auditor
from tests.helpers.brokers import Mosquitto, free_port, running, wait_until
from tests.helpers.samples import Sample, save_samples, take_sample, waiting

ROOT = Path(__file__).parents[2]
SPEED = 20
SAMPLE_S = 1.0
WARM_UP = 1 / 3  # of the time, in which caches and pools may fill
MAX_GROWTH_MB = 1.0
DRAIN_S = 60.0
FEW = 100
PARTS = ("camera", "microphone", "broker", "page")  # what fails now and then; the page is just open


@dataclass(slots=True)
class Result:
    """What the run shows. `growth_mb` compares the last fifth with the fifth after warming up.

    `growth_by_kind_mb` is the same for the parts of a `Sample`'s memory. `kept` events did not arrive and
    wait in the outbox; `lost` ones did neither.
    """

    minutes: float
    seed: int
    events: int = 0
    kept: int = 0
    lost: int = 0
    duplicated: int = 0
    out_of_order: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    rss_mb: float = 0.0
    growth_mb: float = 0.0
    growth_by_kind_mb: dict[str, float] = field(default_factory=dict)
    slope_mb_h: float = 0.0
    files: tuple[int, int] = (0, 0)
    threads: tuple[int, int] = (0, 0)
    most_waiting: int = 0
    exit_code: int | None = None

    @property
    def complaints(self) -> list[str]:
        """What must not be."""
        checks = {
            f"{self.lost} events lost": self.lost > 0,
            "no event came": self.events == 0,
            f"RSS grew by {self.growth_mb:.1f} MB": self.growth_mb > MAX_GROWTH_MB,
            f"open files went from {self.files[0]} to {self.files[1]}": self.files[1] > self.files[0],
            f"threads went from {self.threads[0]} to {self.threads[1]}": self.threads[1] > self.threads[0],
            f"the daemon ended with {self.exit_code}": self.exit_code != 0,
        }
        return [text for text, is_so in checks.items() if is_so]


def soak(
    minutes: float,
    *,
    seed: int,
    directory: Path,
    without: Collection[str] = (),
    samples_path: Path | None = None,
    progress: Progress | None = None,
) -> Result:
    """Run for `minutes` in `directory` without the failures named in `without`; return the result."""
    broker_directory = directory / "broker"
    broker_directory.mkdir()
    clips = {part: directory / f"{part}.mp4" for part in ("camera", "microphone")}
    for path in clips.values():
        shutil.copy(clip_path(), path)
    result = Result(minutes, seed)
    with (
        running(Mosquitto(broker_directory)) as broker,
        Auditor([(broker.host, broker.port)], topic="emotion/lab/event") as auditor,
        _daemon(broker, clips, directory) as (process, port),
    ):
        # The time counts from the first event, however long the daemon takes to start.
        wait_until(lambda: auditor.arrived or process.poll() is not None, "an event", timeout_s=DRAIN_S)
        mischief = _Mischief(random.Random(seed), broker, clips, without)
        samples = _watch(process, port, minutes, mischief, result, progress, has_page="page" not in without)
        process.send_signal(signal.SIGTERM)
        result.exit_code = process.wait(10)
        _account(result, auditor, directory)
    if samples_path is not None:
        save_samples(samples_path, samples)
    _judge(result, samples)
    return result


@contextmanager
def _daemon(
    broker: Mosquitto, clips: dict[str, Path], directory: Path
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    port = free_port()
    env = {
        **os.environ,
        "EMOTION_EDGE__DEVICE__ID": "lab",
        "EMOTION_EDGE__MQTT__HOST": broker.host,
        "EMOTION_EDGE__MQTT__PORT": str(broker.port),
        "EMOTION_EDGE__MQTT__STATS_INTERVAL_S": "5",
        "EMOTION_EDGE__CAMERA__SOURCE": f"file:{clips['camera']}?loop&speed={SPEED}",
        "EMOTION_EDGE__CAMERA__FPS": "60",
        "EMOTION_EDGE__MICROPHONE__SOURCE": f"file:{clips['microphone']}?loop&speed={SPEED}",
        "EMOTION_EDGE__OUTBOX__PATH": str(directory / "outbox.sqlite3"),
        "EMOTION_EDGE__DASHBOARD__BIND": f"127.0.0.1:{port}",
        # Emotions that last: at this pace a scene is over before the usual dwell time is.
        "EMOTION_EDGE__FUSION__MIN_DWELL_S": "0",
        "EMOTION_EDGE__FUSION__EMA_S": "0",
    }
    with (directory / "daemon.log").open("ab") as log:
        process = subprocess.Popen([sys.executable, "-m", "edge", "run"], env=env, cwd=ROOT, stderr=log)
    try:
        yield process, port
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)


class _Mischief:
    """Breaks something every few seconds, and mends it some seconds later."""

    def __init__(
        self, chance: random.Random, broker: Mosquitto, clips: dict[str, Path], without: Collection[str]
    ) -> None:
        self._choices = [what for what in (*clips, "broker") if what not in without]
        self._chance = chance
        self._broker = broker
        self._clips = clips
        self._next_s = 8.0
        self._mend_s: dict[str, float] = {}
        self.done: dict[str, int] = {}

    def act(self, t_s: float) -> None:
        """Do what is due at `t_s`."""
        for what in [what for what, due_s in self._mend_s.items() if t_s >= due_s]:
            del self._mend_s[what]
            self._mend(what)
        if self._choices and t_s >= self._next_s:
            self._next_s = t_s + self._chance.uniform(4, 12)
            what = self._chance.choice(self._choices)
            if what not in self._mend_s:
                self._mend_s[what] = t_s + self._chance.uniform(1, 6)
                self.done[what] = self.done.get(what, 0) + 1
                self._break(what)

    def mend_all(self) -> None:
        """Leave everything whole."""
        for what in self._mend_s:
            self._mend(what)
        self._mend_s.clear()

    def _break(self, what: str) -> None:
        if what == "broker":
            self._broker.kill()
        else:
            self._clips[what].rename(self._clips[what].with_suffix(".away"))

    def _mend(self, what: str) -> None:
        if what == "broker":
            self._broker.start()
        else:
            self._clips[what].with_suffix(".away").rename(self._clips[what])


def _watch(
    process: subprocess.Popen[bytes],
    port: int,
    minutes: float,
    mischief: _Mischief,
    result: Result,
    progress: Progress | None,
    *,
    has_page: bool,
) -> list[Sample]:
    """Sample once a second while things break; then mend all and wait until nothing is stuck."""
    watched = psutil.Process(process.pid)
    stop = threading.Event()
    page = threading.Thread(target=_keep_page_open, args=(port, stop), name="page")
    if has_page:
        page.start()
    samples: list[Sample] = []
    start_s = time.monotonic()
    task = progress.add_task("soak", total=60 * minutes) if progress else None
    try:
        while (t_s := time.monotonic() - start_s) < 60 * minutes and process.poll() is None:
            mischief.act(t_s)
            samples.append(take_sample(watched, port, t_s))
            if progress and task is not None:
                progress.update(task, completed=t_s, description=_line(samples[-1]))
            time.sleep(SAMPLE_S)
        mischief.mend_all()
        result.failures = mischief.done
        end_s = time.monotonic() + DRAIN_S
        # Events go on coming, and each waits until it is safe at the broker: few are none that is stuck.
        while process.poll() is None and not 0 <= waiting(port) <= FEW and time.monotonic() < end_s:
            time.sleep(0.5)
    finally:
        stop.set()
        if has_page:
            page.join()
    return samples


def _keep_page_open(port: int, stop: threading.Event) -> None:
    """Follow the stream as a browser does, and come back when it ends."""
    while not stop.wait(0.5):
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
                connection.request("GET", "/stream")
                answer = connection.getresponse()
                while answer.readline() and not stop.is_set():
                    pass
        except OSError:
            continue


def _account(result: Result, auditor: Auditor, directory: Path) -> None:
    """Compare what arrived with the numbers that the outbox gave."""
    config = Config(device=DeviceSettings(id="lab"), outbox=OutboxSettings(path=directory / "outbox.sqlite3"))
    with closing(
        Outbox(
            directory / "outbox.sqlite3",
            device="lab",
            max_events=config.outbox.max_events,
            max_bytes=config.outbox.max_bytes,
        )
    ) as outbox:
        counts = outbox.counts()
        kept = {row.sequence for row in outbox.waiting(counts.waiting)}
    end_s = time.monotonic() + DRAIN_S
    while set(auditor.lost("lab", counts.last_sequence)) - kept and time.monotonic() < end_s:
        time.sleep(0.2)
    result.events = counts.last_sequence
    missing = set(auditor.lost("lab", counts.last_sequence))
    # The daemon has a second to go: what it did not get rid of in that time, it sends when it starts again.
    result.kept, result.lost = len(missing & kept), len(missing - kept)
    result.duplicated, result.out_of_order = auditor.duplicated, auditor.out_of_order


def _judge(result: Result, samples: list[Sample]) -> None:
    """Fill in what grew after warming up."""
    warm = [sample for sample in samples if sample.t_s >= WARM_UP * samples[-1].t_s]
    fifth = max(1, len(warm) // 5)
    early, late = warm[:fifth], warm[-fifth:]

    def middle(part: list[Sample], name: str) -> float:
        return float(statistics.median(getattr(sample, name) for sample in part))

    result.rss_mb = round(middle(late, "rss_mb"), 1)
    result.growth_mb = round(middle(late, "rss_mb") - middle(early, "rss_mb"), 2)
    result.growth_by_kind_mb = {
        kind: round(middle(late, f"{kind}_mb") - middle(early, f"{kind}_mb"), 2)
        for kind in ("heap", "anonymous", "mapped")
    }
    times = [sample.t_s / 3600 for sample in warm]
    if len(set(times)) > 1:
        line = statistics.linear_regression(times, [sample.rss_mb for sample in warm])
        result.slope_mb_h = round(line.slope, 2)
    result.files = (int(middle(early, "files")), int(middle(late, "files")))
    result.threads = (int(middle(early, "threads")), int(middle(late, "threads")))
    result.most_waiting = max(sample.waiting for sample in samples)


def _line(sample: Sample) -> str:
    return f"{sample.rss_mb:.0f} MB, {sample.files} files, {sample.threads} threads, {sample.waiting} waiting"


def _parts(text: str) -> list[str]:
    parts = text.split(",")
    if unknown := set(parts) - set(PARTS):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: choose from {', '.join(PARTS)}")
    return parts


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--without", type=_parts, default=[], metavar="PART,...", help=", ".join(PARTS))
    parser.add_argument("--samples", type=Path, metavar="FILE")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as directory, Progress(console=console, transient=True) as progress:
        result = soak(
            options.minutes,
            seed=options.seed,
            directory=Path(directory),
            without=options.without,
            samples_path=options.samples,
            progress=progress,
        )
    if options.json:
        print(json.dumps({**dataclasses.asdict(result), "complaints": result.complaints}, indent=2))
    else:
        for name, value in dataclasses.asdict(result).items():
            print(f"{name}\t{value}")
        print("\n".join(result.complaints) or "nothing lost, nothing grew")
    return 1 if result.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
