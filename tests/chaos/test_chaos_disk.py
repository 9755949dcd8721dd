"""A disk of 1 MB under the outbox: it fills, the oldest events go and are counted, the rest is delivered."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from edge.delivery.outbox.queue import Outbox
from edge.delivery.publisher import Publisher
from edge.errors import OutboxError
from tests.chaos.audit import Auditor
from tests.chaos.fleet import make_event
from tests.chaos.outcome import Outcome, pick
from tests.helpers.brokers import Mosquitto, running, settings_of, wait_until

EVENTS = pick(1500, 5000)
BATCH = 20
DISK_BYTES = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    directory = tmp_path / "disk"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(directory)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting a small file system is not permitted here: {done.stderr.strip()}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", directory], check=True)


def test_outbox_on_a_disk_that_fills(
    disk: Path, tmp_path: Path, record: Callable[[Outcome], None], progress: Callable[[str], None]
) -> None:
    """Far more events than fit, and no broker: the oldest go and are counted, and the rest drains later."""
    broker = Mosquitto(tmp_path)
    outbox = Outbox(disk / "outbox.sqlite3", device="kitchen", max_events=EVENTS, max_bytes=1 << 26)
    with closing(outbox), running(broker), Auditor([(broker.host, broker.port)]) as auditor:
        refused = 0
        for first in range(1, EVENTS, BATCH):
            try:
                outbox.append_many([make_event("kitchen", first + n) for n in range(BATCH)])
            except OutboxError:  # all or none: the daemon sends these live and reports the reason
                refused += BATCH
            progress(f"{first} of {EVENTS} events stored, {outbox.counts().dropped} dropped")
        counts = outbox.counts()
        assert counts.dropped > 0
        assert counts.waiting + counts.dropped == counts.last_sequence == EVENTS - refused
        stored = counts.last_sequence + 1
        # Before anything is sent: what makes room for it would else be dropped and arrive all the same.
        outbox.append(make_event("kitchen", EVENTS + 1))

        publisher = Publisher(settings_of(broker), device="kitchen", outbox=outbox)
        started_s = time.time()
        with closing(publisher):
            publisher.start()
            wait_until(lambda: outbox.counts().waiting == 0, "an empty outbox", timeout_s=60)
            dropped = outbox.counts().dropped
            wait_until(lambda: auditor.arrived >= stored - dropped, "all that was kept")
        lost = len(auditor.lost("kitchen", stored)) - dropped
        record(
            Outcome(
                "disk",
                f"{EVENTS} events on {DISK_BYTES >> 20} MB",
                "fills",
                lost,
                auditor.duplicated,
                auditor.out_of_order,
                auditor.recover_s(started_s),
                f"{dropped} dropped and counted, {refused} refused and reported",
            )
        )
        assert auditor.by_device["kitchen"] == list(range(dropped + 1, stored + 1))
