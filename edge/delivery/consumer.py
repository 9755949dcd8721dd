"""What a consumer of `emotion/<device>/event` has to do, in one page to copy: it needs nothing else.

The device sends every event at least once, in order, with an `id` of its own and a `sequence` that has no
hole. Whoever wants each event once drops the ids that came already; whoever wants to know what is missing
compares the numbers. With paho, and a session that the broker keeps while you are away:

    consumer = Consumer()

    def on_message(client, userdata, message):
        if (event := consumer.take(message.payload)) is not None:
            if event.missing:
                print(f"{event.missing} events are missing before this one")
            print(event.body["type"], event.body["data"])

    client = paho.mqtt.client.Client(CallbackAPIVersion.VERSION2, client_id="wall", clean_session=False)
    client.on_connect = lambda client, *_: client.subscribe("emotion/+/event", qos=1)
    client.on_message = on_message
    client.connect("broker.local")
    client.loop_forever()
"""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

MAX_IDS = 10_000  # remembered; what is repeated comes soon, after a reconnect


@dataclass(frozen=True, slots=True)
class Event:
    """A CloudEvent that is new here, and how many numbers of its device were left out just before it.

    `missing` is None where that cannot be told: for the first event of a device, for one that its device
    could not store and sent without a number, and for a late one, such as a dead letter that was retried.
    """

    body: dict[str, Any]
    missing: int | None


class Consumer:
    """Each event once, and every gap told, for any number of devices."""

    def __init__(self) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._newest: dict[str, int] = {}  # by device

    def take(self, payload: bytes) -> Event | None:
        """Return the event, or None where it came before; raise `ValueError` where it is no CloudEvent."""
        body = json.loads(payload)
        if not isinstance(body, dict) or "id" not in body:
            raise ValueError("no CloudEvent: not a JSON object with an id")
        event_id, device, sequence = str(body["id"]), str(body.get("source")), body.get("sequence")
        if event_id in self._ids:
            return None
        self._ids[event_id] = None
        if len(self._ids) > MAX_IDS:
            self._ids.popitem(last=False)
        newest = self._newest.get(device)
        if not isinstance(sequence, int) or (newest is not None and 1 < sequence <= newest):
            return Event(body, None)
        self._newest[device] = sequence  # 1 again: the device was set up anew
        return Event(body, None if newest is None or sequence == 1 else sequence - newest - 1)
