"""The consumer that keeps count: a session that brokers keep, each event once, each device's sequence."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from datetime import datetime
from types import TracebackType
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

RETRY_S = 0.5
SUBSCRIBE_S = 20.0


class Auditor:
    """An independent durable client (clean session off, QoS 1) that goes from host to host until one answers.

    Times are those of the wall clock in seconds, since the events carry it. With `by_id` a device is known by
    its event ids, not by its topic: for several devices on one topic.
    """

    def __init__(
        self,
        addresses: Sequence[tuple[str, int]],
        *,
        topic: str = "emotion/+/event",
        username: str | None = None,
        password: str | None = None,
        by_id: bool = False,
    ) -> None:
        self.duplicated = 0
        self.unnumbered = 0  # events without a sequence: sent live, since no disk stored them
        self.by_device: dict[str, list[int]] = {}  # sequences as they first arrived
        self._times: list[tuple[float, float]] = []  # made, arrived
        self._ids: set[str] = set()
        self._addresses = list(addresses)
        self._topic = topic
        self._by_id = by_id
        self._subscribed = threading.Event()
        self._stop = threading.Event()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id="auditor",
            clean_session=False,
            protocol=MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
        )
        if username is not None:
            self._client.username_pw_set(username, password)
        self._client.on_connect = lambda client, *_: client.subscribe(topic, qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._on_message

    def __enter__(self) -> Auditor:
        self.come_back()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    def come_back(self) -> None:
        """Connect and subscribe, and get what the broker kept."""
        self._stop.clear()
        self._subscribed.clear()
        self._thread = threading.Thread(target=self._run, name="auditor")
        self._thread.start()
        assert self._subscribed.wait(SUBSCRIBE_S), f"no SUBACK from {self._addresses}"

    def leave(self) -> None:
        """Disconnect; the session stays."""
        self._stop.set()
        self._thread.join()

    @property
    def arrived(self) -> int:
        """How many different events are here."""
        return len(self._ids)

    def lost(self, device: str, last_sequence: int) -> list[int]:
        """Return the sequences of 1..last_sequence that never came."""
        return sorted(set(range(1, last_sequence + 1)) - set(self.by_device.get(device, [])))

    @property
    def out_of_order(self) -> int:
        """How many first deliveries stepped back behind a later event of their device."""
        steps = 0
        for sequences in self.by_device.values():
            highest = 0
            for sequence in sequences:
                steps += sequence < highest
                highest = max(highest, sequence)
        return steps

    def recover_s(self, fault_s: float) -> float:
        """Return how long after `fault_s` an event that was made after it was here.

        Where all had been made before, it is the last of them that counts.
        """
        times = list(self._times)
        after_s = [arrived_s for made_s, arrived_s in times if made_s >= fault_s]
        return (min(after_s) if after_s else max(arrived_s for _, arrived_s in times)) - fault_s

    def _run(self) -> None:
        turn = 0
        while not self._stop.is_set():
            try:
                self._client.connect(*self._addresses[turn % len(self._addresses)], keepalive=10)
                while not self._stop.is_set() and self._client.loop(0.1) == paho.MQTT_ERR_SUCCESS:
                    pass
            except OSError:
                pass
            if (sock := self._client.socket()) is not None and not self._stop.is_set():
                sock.close()
            turn += 1
            self._stop.wait(RETRY_S)
        self._client.disconnect()
        if (sock := self._client.socket()) is not None:
            sock.close()

    def _on_message(self, _client: Any, _userdata: Any, message: paho.MQTTMessage) -> None:
        event = json.loads(message.payload)
        if event["id"] in self._ids:
            self.duplicated += 1
            return
        self._ids.add(event["id"])
        if "sequence" not in event:
            self.unnumbered += 1
            return
        device = event["id"].rpartition("-")[0] if self._by_id else message.topic.split("/")[-2]
        self.by_device.setdefault(device, []).append(event["sequence"])
        self._times.append((datetime.fromisoformat(event["time"]).timestamp(), time.time()))
