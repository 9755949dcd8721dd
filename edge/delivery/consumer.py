"""A consumer of `emotion/<device>/event` in one file without other dependencies, to copy.

The device sends every event at least once, in order, with a unique `id` and a `sequence` without gaps. To
process each event once, drop the ids that have arrived before; to notice missing events, compare the
sequences. With paho, and a session that the broker keeps while the client is disconnected:

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

MAX_IDS = 10_000  # that are kept; a repetition comes soon, after a reconnect


@dataclass(frozen=True, slots=True)
class Event:
    """A CloudEvent that arrived for the first time, and how many events of its device are missing before it.

    `missing` is None if that is not known: for the first event of a device, for one that the device could not
    store and sent without a sequence, and for a late one, such as a dead letter that was retried.
    """

    body: dict[str, Any]
    missing: int | None


class Consumer:
    """Finds repeated and missing events, for any number of devices."""

    def __init__(self) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._newest: dict[str, int] = {}  # by device

    def take(self, payload: bytes) -> Event | None:
        """Return the event, or None if it has arrived before; raise `ValueError` if it is no CloudEvent."""
        try:
            body = json.loads(payload)
        except RecursionError as error:
            raise ValueError("not a CloudEvent: nested too deeply") from error
        if not isinstance(body, dict) or "id" not in body:
            raise ValueError("not a CloudEvent: not a JSON object with an id")
        event_id, device, sequence = str(body["id"]), str(body.get("source")), body.get("sequence")
        if event_id in self._ids:
            return None
        self._ids[event_id] = None
        if len(self._ids) > MAX_IDS:
            self._ids.popitem(last=False)
        newest = self._newest.get(device)
        if not isinstance(sequence, int) or (newest is not None and 1 < sequence <= newest):
            return Event(body, None)
        self._newest[device] = sequence  # 1 again: the device has a new outbox
        return Event(body, None if newest is None or sequence == 1 else sequence - newest - 1)
