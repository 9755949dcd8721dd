"""A network path to a broker that ends connections when a test asks for it."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edge.settings import MqttSettings
from tests.helpers.brokers import Broker


class Link:
    """Forwards TCP connections to a broker; `is_cut(data)` decides on each piece that the device sends.

    A piece for which it returns True is not forwarded, and its connection is closed. `cuts` counts them.
    """

    def __init__(self, broker: Broker, is_cut: Callable[[bytes], bool]) -> None:
        self.cuts = 0
        self._broker = broker
        self._is_cut = is_cut
        self._server = socket.create_server(("127.0.0.1", 0))
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def settings(self) -> MqttSettings:
        """The settings that lead through this path."""
        return MqttSettings(host="127.0.0.1", port=self._server.getsockname()[1])

    def close(self) -> None:
        """Accept no further connection and end the current one."""
        self._closing.set()
        self._thread.join(5)
        self._server.close()

    def _accept(self) -> None:
        self._server.settimeout(0.05)
        while not self._closing.is_set():
            try:
                device, _ = self._server.accept()
            except TimeoutError:
                continue
            with device, socket.create_connection((self._broker.host, self._broker.port)) as broker:
                self._forward(device, broker)

    def _forward(self, device: socket.socket, broker: socket.socket) -> None:
        while not self._closing.is_set():
            for source in select.select([device, broker], [], [], 0.05)[0]:
                try:
                    data = source.recv(65_536)
                    if source is device and data and self._is_cut(data):
                        self.cuts += 1
                        return
                    (broker if source is device else device).sendall(data)
                except OSError:
                    return
                if not data:
                    return


@contextmanager
def linked(broker: Broker, is_cut: Callable[[bytes], bool]) -> Iterator[Link]:
    """Run a `Link` while the block lasts."""
    link = Link(broker, is_cut)
    try:
        yield link
    finally:
        link.close()
