"""The real daemon, run on a thread of the test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from edge.daemon import Daemon
from edge.settings import Config


@contextmanager
def living(config: Config, **options: Any) -> Iterator[None]:
    """Run the daemon in this process while the block lasts; `options` are those of `Daemon`."""
    daemon = Daemon(config, **options)
    thread = threading.Thread(target=daemon.run)
    thread.start()
    try:
        yield
    finally:
        daemon.stop()
        thread.join(10)
        assert not thread.is_alive()
