"""Fuzz target: malformed MQTT packets of a broker, sent to the publisher of the daemon."""

from __future__ import annotations

import io
import logging
import os
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from random import Random

from edge.delivery.mqtt.tuning import V5, V311
from edge.delivery.outbox.queue import Outbox
from edge.delivery.publisher import Publisher
from edge.settings import MqttSettings
from tests.fuzz.damage import damage
from tests.fuzz.target import CANARY, Target, Verdict
from tests.helpers.brokers import BRISK, make_event, open_outbox

WAIT_S = 0.05  # for the packets to be read; also for further ones of the client
CONNACK = bytes.fromhex("2003000000")
PACKETS = [
    CONNACK,
    bytes.fromhex("20020000"),  # CONNACK of MQTT 3.1.1
    bytes.fromhex("200b000008210014270000012224")[:13],
    bytes.fromhex("20060000032101ff"),  # receive maximum 511
    bytes.fromhex("40020001"),  # PUBACK
    bytes.fromhex("400400018700"),  # PUBACK, not authorized
    bytes.fromhex("9004000100" + "01"),  # SUBACK
    bytes.fromhex("d000"),  # PINGRESP
    bytes.fromhex("e0028b00"),  # DISCONNECT, server shutting down
    bytes.fromhex("f0021800"),  # AUTH
    bytes.fromhex("50020001"),  # PUBREC
    bytes.fromhex("30ffffffff7f"),  # PUBLISH with an endless length
    b"\x32\x1f\x00\x1aemotion/kitchen/camera/set" + b"\x00\x01\x00",
    b"\x30\x0b\x00\x05\xff\xfe/\x00x\x00ON!",
    b"\x10\x00",
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
]


def generate(random: Random) -> bytes:
    """Return `A` where a good CONNACK comes first or `-`, `5` or `3` for the version, and packets."""
    packets = b"".join(random.choice(PACKETS) for _ in range(random.choice((1, 1, 2, 4))))
    if random.random() < 0.7:
        packets = damage(packets, random)
    return random.choice((b"A", b"A", b"-")) + random.choice((b"5", b"3")) + packets


class Client:
    """A publisher with one event, connected to a broker that sends the input."""

    def __init__(self, outbox: Outbox) -> None:
        self.pid = os.getpid()
        self._outbox = outbox
        self._log = io.StringIO()
        logging.basicConfig(stream=self._log, force=True)
        threading.excepthook = self._record

    def _record(self, args: threading.ExceptHookArgs) -> None:
        self._log.write("".join(traceback.format_exception(args.exc_value)))

    def run(self, data: bytes) -> Verdict:
        self._log.seek(0)
        self._log.truncate()
        protocol = V5 if data[1:2] == b"5" else V311
        connack = {V5: CONNACK, V311: PACKETS[1]}[protocol] if data[:1] == b"A" else b""
        # A server for each try: the publisher may connect again, which the next try must not accept.
        with socket.create_server(("127.0.0.1", 0)) as server:
            settings = MqttSettings(host="127.0.0.1", port=server.getsockname()[1], username="edge")
            tuning = replace(BRISK, protocols=(protocol,), connect_timeout_s=1.0, first_pause_s=(5.0, 5.0))
            publisher = Publisher(
                settings, device="kitchen", outbox=self._outbox, password=CANARY, tuning=tuning
            )
            publisher.start()
            device, _ = server.accept()
            with device, suppress(OSError):
                device.settimeout(WAIT_S)
                device.recv(65_536)
                device.sendall(connack + data[2:])
                end_s = time.monotonic() + WAIT_S
                while time.monotonic() < end_s and device.recv(65_536):
                    pass
        is_accepted = publisher.connection_state.connected
        publisher.close()
        assert "mqtt" not in {thread.name for thread in threading.enumerate()}, "the thread does not end"
        return Verdict(is_accepted, self._log.getvalue())


@contextmanager
def opened(directory: Path) -> Iterator[Client]:
    with closing(open_outbox(directory / "outbox.db")) as outbox:
        outbox.append(make_event(1))
        yield Client(outbox)


TARGET = Target("packets", generate, opened)
