"""A real daemon on a real mosquitto, with a camera whose address has the canary as its password."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.edge.page.test_browser import Site
from tests.fuzz.target import CAMERA
from tests.helpers.brokers import Mosquitto, running


class LiveDaemon:
    """The daemon; `check` returns what it logged since the last call, and fails if it does not answer."""

    def __init__(self, site: Site, broker: Mosquitto) -> None:
        assert site.process is not None
        self.broker = broker
        self.port = site.port
        self.pid = site.process.pid
        self._site = site
        self._read = 0

    def check(self) -> str:
        process = self._site.process
        with self._site.log.open("rb") as log:
            log.seek(self._read)
            new = log.read()
        self._read += len(new)
        text = new.decode(errors="replace")
        assert process is not None
        assert process.poll() is None, f"the daemon ended with {process.returncode}: {text}"
        assert self._site.ask("GET", "/healthz")[0] in (200, 503)
        return text


@contextmanager
def live_daemon(directory: Path) -> Iterator[LiveDaemon]:
    """Run broker and daemon while the block lasts."""
    with running(Mosquitto(directory)) as broker:
        site = Site(directory, broker, EMOTION_EDGE__CAMERA__SOURCE=CAMERA)  # type: ignore[arg-type]
        site.start()
        try:
            yield LiveDaemon(site, broker)
        finally:
            site.stop()
