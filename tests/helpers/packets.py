"""A network path to a broker that reads MQTT packets, and damages the ones that a test chooses."""

from __future__ import annotations

import select
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal

from edge.settings import MqttSettings

PUBLISH, PUBACK = 3, 4
READ_S = 0.05  # between two checks whether the path is closed

Action = Literal["pass", "drop", "close", "truncate", "freeze", "pass_and_close"]


@dataclass(frozen=True, slots=True)
class Packet:
    """One MQTT packet; `number` counts those of its connection and direction from 1."""

    data: bytes
    from_device: bool
    number: int

    @property
    def kind(self) -> int:
        """The type of the packet, such as `PUBLISH`."""
        return self.data[0] >> 4


class PacketPath:
    """Forwards connections to a broker; `choose(packet)` names what happens to each packet.

    `drop` loses the packet, `close` the packet and its connection. `truncate` forwards the first half, then
    closes. `freeze` makes the connection half-open: it stays open, and nothing passes any more.
    `pass_and_close` forwards the packet and closes. `counts` has how often each action was chosen.
    """

    def __init__(self, host: str, port: int, choose: Callable[[Packet], Action]) -> None:
        self.counts: Counter[Action] = Counter()
        self._target = (host, port)
        self._choose = choose
        self._lock = threading.Lock()  # one packet at a time, so that `choose` may have a state
        self._closing = threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def port(self) -> int:
        """The port of this path."""
        return int(self._server.getsockname()[1])

    @property
    def settings(self) -> MqttSettings:
        """The settings that lead through this path."""
        return MqttSettings(host="127.0.0.1", port=self.port)

    def close(self) -> None:
        """Accept no further connection and end the others."""
        self._closing.set()
        for thread in list(self._threads):
            thread.join()
        self._server.close()

    def _accept(self) -> None:
        self._server.settimeout(READ_S)
        while not self._closing.is_set():
            try:
                device, _ = self._server.accept()
            except TimeoutError:
                continue
            try:
                broker = socket.create_connection(self._target)
            except OSError:  # the broker is down
                device.close()
                continue
            thread = threading.Thread(target=self._serve, args=(device, broker))
            self._threads.append(thread)
            thread.start()

    def _serve(self, device: socket.socket, broker: socket.socket) -> None:
        buffers = {device: bytearray(), broker: bytearray()}
        numbers, is_frozen = Counter[socket.socket](), False
        with device, broker, suppress(OSError):
            while not self._closing.is_set():
                for source in select.select([device, broker], [], [], READ_S)[0]:
                    data = source.recv(65_536)
                    if not data:
                        return
                    if is_frozen:
                        continue
                    buffers[source] += data
                    while not is_frozen and (size := packet_size(buffers[source])):
                        numbers[source] += 1
                        packet = Packet(bytes(buffers[source][:size]), source is device, numbers[source])
                        del buffers[source][:size]
                        is_frozen = not self._handle(packet, broker if source is device else device)

    def _handle(self, packet: Packet, target: socket.socket) -> bool:
        """Do what is chosen; return False for `freeze`, raise `OSError` to close."""
        with self._lock:
            action = self._choose(packet)
            self.counts[action] += 1
        if action in ("pass", "pass_and_close"):
            target.sendall(packet.data)
        elif action == "truncate":
            target.sendall(packet.data[: len(packet.data) // 2])
        if action in ("close", "truncate", "pass_and_close"):
            raise ConnectionAbortedError(action)
        return action != "freeze"


def packet_size(buffer: bytes | bytearray) -> int:
    """Return the size of the first packet in bytes, 0 while it is incomplete."""
    size = 0
    for position, byte in enumerate(buffer[1:5]):
        size |= (byte & 127) << 7 * position
        if byte < 128:
            total = 2 + position + size
            return total if total <= len(buffer) else 0
    return 0


def closed_above(limit: int) -> Callable[[Packet], Action]:
    """Return a choice that closes the connection on packets of more than `limit` bytes from the device."""
    return lambda packet: "close" if packet.from_device and len(packet.data) > limit else "pass"


@contextmanager
def packet_path(host: str, port: int, choose: Callable[[Packet], Action]) -> Iterator[PacketPath]:
    """Run a `PacketPath` while the block lasts."""
    path = PacketPath(host, port, choose)
    try:
        yield path
    finally:
        path.close()
