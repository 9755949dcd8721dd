"""The publisher with real brokers: order, at least once, availability, refusals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from edge.daemon.handlers import report_connection
from edge.delivery.mqtt.connection import packet_bytes
from edge.delivery.mqtt.connection_state import ConnectionState
from edge.delivery.mqtt.session import IDLE_WAIT_S
from edge.delivery.mqtt.tuning import V5, V311, Tuning
from edge.delivery.outbox.queue import Outbox
from edge.delivery.publisher import Publisher
from edge.health import Health
from edge.policy import Policy
from edge.settings import MqttSettings
from edge.values import encode
from tests.helpers.brokers import (
    BRISK,
    DEADLINE_S,
    Broker,
    Mosquitto,
    Nats,
    free_port,
    is_empty,
    make_event,
    pause,
    publishing,
    running,
    settings_of,
    unpause,
    wait_until,
    watching,
)
from tests.helpers.links import linked

ROOT = "emotion/kitchen"
EVENT = f"{ROOT}/event"
AVAILABILITY = f"{ROOT}/availability"
PROBE = f"{ROOT}/probe"  # sent to MQTT 3.1.1 brokers only
QUICK = replace(BRISK, stable_s=0.0, size_pause_s=(0.0, 0.1))  # the pause never grows


def sequences(payloads: list[bytes]) -> list[int]:
    return [json.loads(payload)["sequence"] for payload in payloads]


def test_events_arrive_in_order_and_leave_the_outbox(broker: Broker, outbox: Outbox) -> None:
    """Events from before and during the connection arrive once, in order, as stored."""
    outbox.append_many([make_event(n) for n in range(150)])
    stored = [row.payload for row in outbox.waiting(150)]
    with watching(broker, EVENT) as watcher, publishing(settings_of(broker), outbox) as publisher:
        for number in range(150, 300):
            outbox.append(make_event(number))
            publisher.event_added()
        wait_until(lambda: len(set(watcher.on(EVENT))) >= 300, "300 events")
        wait_until(is_empty(outbox), "an empty outbox")
        # NATS repeats what a subscriber did not acknowledge within 2 s, as on a busy machine.
        arrived = (
            watcher.on(EVENT) if isinstance(broker, Mosquitto) else list(dict.fromkeys(watcher.on(EVENT)))
        )
        assert sequences(arrived) == list(range(1, 301))
        assert arrived[:150] == stored
        assert not any(message.retained for message in watcher.seen)


def test_event_is_sent_without_waiting_for_a_poll(broker: Broker, outbox: Outbox) -> None:
    """Most events reach another client in a fraction of the wait of an idle session: new work wakes it."""
    with watching(broker, EVENT) as watcher, publishing(settings_of(broker), outbox) as publisher:
        took_s = []
        for number in range(21):
            started_s = time.monotonic()
            outbox.append(make_event(number))
            publisher.event_added()
            wait_until(lambda: len(watcher.on(EVENT)) > number, "the event")
            took_s.append(time.monotonic() - started_s)
        assert sorted(took_s)[10] < IDLE_WAIT_S / 10


def test_online_comes_last_at_every_connect(broker: Broker, outbox: Outbox) -> None:
    """A client that acts on `online` finds status and states, also after a reconnect."""
    wanted = [f"{ROOT}/status", f"{ROOT}/state", f"{ROOT}/voice/state", AVAILABILITY]
    with watching(broker, f"{ROOT}/#") as watcher:
        states: list[ConnectionState] = []
        publisher = Publisher(
            settings_of(broker), device="kitchen", outbox=outbox, on_state=states.append, tuning=BRISK
        )
        for subtopic in ("state", "voice/state", "status"):
            publisher.publish_state(subtopic, {})
        publisher.start()
        with closing(publisher):
            watcher.wait_for(AVAILABILITY, b"online")
            assert [message.topic for message in watcher.seen if message.topic != PROBE] == wanted
            with watching(broker, client_id="emotion-edge-kitchen"):  # takes the connection over
                wait_until(lambda: len(states) > 1, "a lost connection")
            wait_until(lambda: watcher.on(AVAILABILITY).count(b"online") == 2, "online again")
            seen = [m.topic for m in watcher.seen if m.payload != b"offline" and m.topic != PROBE]
            assert seen == wanted * 2


def test_latest_state_wins_while_offline(broker: Broker, outbox: Outbox) -> None:
    """Of the states from before the connection only the newest is sent; it is retained."""
    publisher = Publisher(settings_of(broker), device="kitchen", outbox=outbox)
    with watching(broker, f"{ROOT}/state") as watcher, closing(publisher):
        for number in range(5):
            publisher.publish_state("state", {"number": number})
        publisher.start()
        watcher.wait_for(f"{ROOT}/state", b'{"number":4}')
        publisher.publish_state("state", {"number": 4})
        wait_until(lambda: len(watcher.on(f"{ROOT}/state")) == 2, "the same state again")
        assert set(watcher.on(f"{ROOT}/state")) == {b'{"number":4}'}
        with watching(broker, f"{ROOT}/state") as later:
            later.wait_for(f"{ROOT}/state", b'{"number":4}')
            assert later.seen[0].retained


def test_reconnects_replay_events_in_order_and_states_never(mosquitto: Mosquitto, outbox: Outbox) -> None:
    """Over three outages every event arrives, in order; of the states only the newest at each reconnect."""
    state = f"{ROOT}/state"
    with (
        watching(mosquitto, EVENT, state, client_id="foreign", durable=True) as watcher,
        publishing(settings_of(mosquitto), outbox) as publisher,
    ):
        wait_until(lambda: publisher.connection_state.connected, "a connection")
        for outage in range(3):
            mosquitto.kill()
            wait_until(lambda: not publisher.connection_state.connected, "a lost connection")
            for number in range(20):
                outbox.append(make_event(100 * outage + number))
                publisher.event_added()
                publisher.publish_state("state", {"outage": outage, "number": number})
            mosquitto.start()
            wait_until(is_empty(outbox), "an empty outbox")
            wait_until(lambda: b'{"outage":%d,"number":19}' % outage in watcher.on(state), "the state")
        wait_until(lambda: len(set(watcher.on(EVENT))) == 60, "60 events")
        assert list(dict.fromkeys(sequences(watcher.on(EVENT)))) == list(range(1, 61))
        assert {json.loads(payload)["number"] for payload in watcher.on(state)} == {19}


def test_clean_close_publishes_offline_once(broker: Broker, outbox: Outbox) -> None:
    """`stopping`, then one `offline`, and not the will as well; a later subscriber finds `offline`."""
    with watching(broker, f"{ROOT}/#") as watcher:
        with publishing(settings_of(broker), outbox) as publisher:
            watcher.wait_for(AVAILABILITY, b"online")
            publisher.publish_state("status", {"state": "stopping"})
            started_s = time.monotonic()
        assert time.monotonic() - started_s < 2.0
        watcher.wait_for(AVAILABILITY, b"offline")
        watcher.publish(f"{ROOT}/fence", b"")  # everything that the broker sent before arrives before this
        watcher.wait_for(f"{ROOT}/fence", b"")
        seen = [m for m in watcher.seen if m.topic != PROBE]
        after_online = [(m.topic, m.payload) for m in seen if m.payload not in (b"online", b"")]
        assert after_online == [(f"{ROOT}/status", b'{"state":"stopping"}'), (AVAILABILITY, b"offline")]
    with watching(broker, AVAILABILITY) as later:
        later.wait_for(AVAILABILITY, b"offline")


def test_close_sends_what_was_just_appended(broker: Broker, outbox: Outbox) -> None:
    """The last events before a stop are sent before it ends."""
    with watching(broker, EVENT) as watcher:
        with publishing(settings_of(broker), outbox) as publisher:
            wait_until(lambda: publisher.connection_state.connected, "a connection")
            outbox.append_many([make_event(n) for n in range(100)])
            # Of the daemon's 2 s a second is for `offline`: a busy broker may need longer for 100 events.
            publisher.close(timeout_s=DEADLINE_S)
        wait_until(lambda: len(watcher.on(EVENT)) == 100, "100 events")
        assert outbox.counts().waiting == 0


PUBLISHER = """
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from edge.settings import MqttSettings
from edge.values import encode
from edge.delivery.publisher import Publisher
from edge.delivery.mqtt.tuning import V5, V311, Tuning
from edge.delivery.outbox.queue import Outbox
from edge.values import EmotionEvent
outbox = Outbox(Path(sys.argv[2]), device="kitchen", max_events=100000, max_bytes=1 << 30)
publisher = Publisher(MqttSettings(port=int(sys.argv[1])), device="kitchen", outbox=outbox)
publisher.start()
start = outbox.counts().last_sequence
for n in range(start, start + 100000):
    event = EmotionEvent(id=f"{n}", type="emotion.changed", time=datetime.now(UTC), t_ns=0)
    print(outbox.append(event), flush=True)
    publisher.event_added()
"""


def test_kill_9_of_the_publisher_loses_nothing_and_leaves_offline(broker: Broker, tmp_path: Path) -> None:
    """Killed twice in mid-stream: the broker publishes `offline`; stored events arrive after the restart."""
    path = tmp_path / "outbox.db"
    promised = 0
    with watching(broker, f"{ROOT}/#") as watcher:
        for round_ in (1, 2):
            with subprocess.Popen(
                [sys.executable, "-c", PUBLISHER, str(broker.port), str(path)],
                stdout=subprocess.PIPE,
                text=True,
            ) as process:
                assert process.stdout is not None
                so_far = len(watcher.on(EVENT))
                wait_until(lambda: len(watcher.on(EVENT)) > so_far + 20, "events")
                os.kill(process.pid, signal.SIGKILL)
                promised = int(process.stdout.read().split()[-1])
            wait_until(lambda: watcher.on(AVAILABILITY).count(b"offline") == round_, "the will")
        with (
            closing(Outbox(path, device="kitchen", max_events=100_000, max_bytes=1 << 30)) as outbox,
            publishing(settings_of(broker), outbox),
        ):
            wait_until(is_empty(outbox), "an empty outbox")
            last = outbox.counts().last_sequence
            wait_until(lambda: last in sequences(watcher.on(EVENT)[-200:]), "the last event")
    assert last >= promised
    assert list(dict.fromkeys(sequences(watcher.on(EVENT)))) == list(range(1, last + 1))


def stream_with_gaps(broker: Broker, outbox: Outbox, end: Callable[[], None]) -> list[int]:
    """Append 400 events while the broker ends twice; return the sequences as they first arrived."""
    with (
        watching(broker, EVENT, client_id="watcher", durable=True) as watcher,
        publishing(settings_of(broker), outbox) as publisher,
    ):
        for number in range(400):
            outbox.append(make_event(number))
            publisher.event_added()
            if number in (100, 300):
                wait_until(lambda: len(watcher.on(EVENT)) > number // 2, "some events")
                end()
            if number in (200, 399):
                wait_until(lambda: not publisher.connection_state.connected, "a lost connection")
                broker.start()
        wait_until(is_empty(outbox), "an empty outbox")
        wait_until(lambda: len(set(sequences(watcher.on(EVENT)))) == 400, "400 events")
        assert outbox.counts().refused == outbox.counts().dropped == 0
        return list(dict.fromkeys(sequences(watcher.on(EVENT))))


def test_broker_restarted_in_mid_stream_loses_nothing(broker: Broker, outbox: Outbox) -> None:
    """Events continue while the broker is down; afterwards all have arrived, in order."""
    arrived = stream_with_gaps(broker, outbox, broker.stop)
    # NATS repeats what was in flight to the subscriber when it ended, at any later time.
    assert (arrived if isinstance(broker, Mosquitto) else sorted(arrived)) == list(range(1, 401))


def test_broker_killed_in_mid_stream_loses_nothing(tmp_path: Path, outbox: Outbox) -> None:
    """kill -9 of the embedded broker: what it acknowledged is on its disk, the rest is sent again."""
    with running(Nats(tmp_path / "broker")) as broker:
        assert sorted(stream_with_gaps(broker, outbox, broker.kill)) == list(range(1, 401))


@pytest.mark.parametrize("padding", [0, 1000, 5000])
def test_connection_that_ends_at_each_event_loses_nothing(
    mosquitto: Mosquitto, outbox: Outbox, padding: int
) -> None:
    """Eight connections in a row end with the same event in flight: all events arrive, in order."""
    outbox.append_many([make_event(n, padding=padding) for n in range(20)])
    pieces: list[bytes] = []

    def is_cut(data: bytes) -> bool:
        if EVENT.encode() in data:
            pieces.append(data)
        return EVENT.encode() in data and len(pieces) <= 8

    with watching(mosquitto, EVENT) as watcher, linked(mosquitto, is_cut) as link:
        with publishing(link.settings, outbox, tuning=QUICK):
            wait_until(is_empty(outbox), "an empty outbox", timeout_s=60)
        assert link.cuts == 8
        assert sequences(watcher.on(EVENT)) == list(range(1, 21))
    assert outbox.counts().refused == 0


def test_refused_event_is_a_dead_letter(tmp_path: Path, outbox: Outbox) -> None:
    """An event that the access list forbids leaves the queue with the reason; states are still sent."""
    access = tmp_path / "acl"
    access.write_text(f"topic readwrite {AVAILABILITY}\ntopic readwrite {ROOT}/state\n")
    with (
        running(Mosquitto(tmp_path, f"acl_file {access}")) as broker,
        watching(broker, f"{ROOT}/state") as watcher,
        publishing(settings_of(broker), outbox) as publisher,
    ):
        outbox.append_many([make_event(n) for n in range(3)])
        publisher.event_added()
        wait_until(is_empty(outbox), "an empty outbox")
        publisher.publish_state("state", {})
        watcher.wait_for(f"{ROOT}/state", b"{}")
        assert [(letter.sequence, letter.reason) for letter in outbox.refused()] == [
            (3, "not_authorized"),
            (2, "not_authorized"),
            (1, "not_authorized"),
        ]
        assert publisher.refused_topics == {EVENT: "not_authorized"}
        assert publisher.connection_state.connected


def test_event_too_large_for_the_broker_is_a_dead_letter(tmp_path: Path, outbox: Outbox) -> None:
    """An event above the size that the broker announced is a dead letter; those around it are sent."""
    outbox.append_many([make_event(1), make_event(2, padding=5000), make_event(3)])
    with (
        running(Mosquitto(tmp_path, "max_packet_size 4000")) as broker,
        watching(broker, EVENT) as watcher,
        publishing(settings_of(broker), outbox),
    ):
        wait_until(lambda: len(watcher.on(EVENT)) == 2, "two events")
        assert sequences(watcher.on(EVENT)) == [1, 3]
        wait_until(is_empty(outbox), "an empty outbox")
        assert [letter.reason for letter in outbox.refused()] == ["packet_too_large"]


@pytest.mark.parametrize(("spare", "is_sent"), [(1, True), (0, True), (-1, False)])
def test_state_too_large_for_the_broker_is_left_out(
    tmp_path: Path, outbox: Outbox, spare: int, is_sent: bool
) -> None:
    """Exactly at the broker's maximum a state is sent, one over it is left out and named; the rest flows."""
    topic = f"{ROOT}/state"
    payload = encode({"padding": "x" * 4000})
    size = packet_bytes(topic, payload)
    outbox.append(make_event(1))
    with (
        running(Mosquitto(tmp_path, f"max_packet_size {size + spare}")) as broker,
        watching(broker, f"{ROOT}/#") as watcher,
        publishing(settings_of(broker), outbox) as publisher,
    ):
        publisher.publish_state("state", {"padding": "x" * 4000})
        publisher.publish_state("voice/state", {})
        watcher.wait_for(f"{ROOT}/voice/state", b"{}")
        wait_until(is_empty(outbox), "an empty outbox")
        state = publisher.connection_state
        assert state.connected
        assert watcher.on(topic) == ([payload] if is_sent else [])
        assert list(state.faults) == ([] if is_sent else ["packet_too_large"])
        sentence = f"{topic} has {size} bytes, the broker takes {size - 1};"
        assert is_sent or sentence in state.faults["packet_too_large"]
        publisher.publish_state("state", {})
        wait_until(lambda: not publisher.connection_state.faults, "a smaller state clears the fault")
        assert watcher.on(AVAILABILITY) == [b"online"]


@pytest.mark.parametrize("protocols", [(V5, V311), (V311,)], ids=["5", "3.1.1"])
def test_broker_without_retained_messages(
    tmp_path: Path, outbox: Outbox, protocols: tuple[MQTTProtocolVersion, ...]
) -> None:
    """The device connects without a retained will, names the fault, and publishes everything else."""
    outbox.append_many([make_event(n) for n in range(3)])
    with (
        running(Mosquitto(tmp_path, "retain_available false")) as broker,
        watching(broker, f"{ROOT}/#") as watcher,
    ):
        with publishing(settings_of(broker), outbox, tuning=replace(BRISK, protocols=protocols)) as publisher:
            publisher.publish_state("state", {})
            watcher.wait_for(f"{ROOT}/state", b"{}")
            wait_until(is_empty(outbox), "an empty outbox")
            assert sequences(watcher.on(EVENT)) == [1, 2, 3]
            faults = publisher.connection_state.faults
            assert list(faults) == ["retain_not_supported"]
            assert "retain_available true" in faults["retain_not_supported"]
        watcher.wait_for(AVAILABILITY, b"offline")


def test_two_faults_of_a_broker_are_both_reasons(tmp_path: Path, outbox: Outbox) -> None:
    """A broker without retained messages that takes small messages only; a smaller message ends one fault."""
    health = Health()
    with (
        running(Mosquitto(tmp_path, "retain_available false", "max_packet_size 1000")) as broker,
        publishing(settings_of(broker), outbox, on_state=partial(report_connection, health)) as publisher,
    ):
        publisher.publish_state("state", {"padding": "x" * 1000})
        expected = ["mqtt:packet_too_large", "mqtt:retain_not_supported"]
        wait_until(lambda: health.reasons == expected, "both reasons")
        publisher.publish_state("state", {})
        wait_until(lambda: health.reasons == ["mqtt:retain_not_supported"], "the reason that is left")


def test_command_of_a_megabyte_is_not_read(broker: Broker, outbox: Outbox) -> None:
    """MQTT 5 brokers drop it; under 3.1.1 the connection ends before it is read. Commands then work again."""
    command = f"{ROOT}/camera/enabled/set"
    calls: list[bytes] = []
    states: list[ConnectionState] = []
    with watching(broker, AVAILABILITY) as watcher:
        publisher = Publisher(
            settings_of(broker), device="kitchen", outbox=outbox, on_state=states.append, tuning=QUICK
        )
        publisher.subscribe("camera/enabled/set", lambda payload, _retained: calls.append(payload))
        publisher.start()
        with closing(publisher):
            watcher.wait_for(AVAILABILITY, b"online")
            watcher.publish(command, "x" * 1_000_000)

            def has_answered() -> bool:
                watcher.publish(command, "OFF")
                return b"OFF" in calls

            wait_until(has_answered, "a command")
            assert set(calls) == {b"OFF"}
            reasons = {state.reason for state in states if not state.connected}
            expected = set() if isinstance(broker, Mosquitto) else {"incoming_too_large"}
            assert reasons - {"connecting"} == expected


def test_broker_that_stops_acknowledging(mosquitto: Mosquitto, outbox: Outbox) -> None:
    """The connection to a hung broker ends with `no_ack`; the events arrive when it works again."""
    tuning = replace(BRISK, no_ack_s=0.3)
    states: list[ConnectionState] = []
    with publishing(settings_of(mosquitto), outbox, on_state=states.append, tuning=tuning) as publisher:
        wait_until(lambda: publisher.connection_state.connected, "a connection")
        pause(mosquitto.pid)
        outbox.append_many([make_event(n) for n in range(3)])
        publisher.event_added()
        wait_until(lambda: "no_ack" in [state.reason for state in states], "no_ack")
        unpause(mosquitto.pid)
        wait_until(is_empty(outbox), "an empty outbox")
        assert outbox.counts().refused == 0


def test_close_does_not_wait_for_a_hung_broker(mosquitto: Mosquitto, outbox: Outbox) -> None:
    """A stop ends within its timeout; the broker then publishes the will, which is `offline` too."""
    with watching(mosquitto, AVAILABILITY) as watcher:
        publisher = Publisher(settings_of(mosquitto), device="kitchen", outbox=outbox)
        publisher.start()
        watcher.wait_for(AVAILABILITY, b"online")
        pause(mosquitto.pid)
        started_s = time.monotonic()
        publisher.close(1.0)
        assert time.monotonic() - started_s < 2.0
        unpause(mosquitto.pid)
        watcher.wait_for(AVAILABILITY, b"offline")


def test_close_before_any_connection(outbox: Outbox) -> None:
    """A publisher that never connected, or was never started, closes at once, also a second time."""
    for is_started in (True, False):
        publisher = Publisher(MqttSettings(port=free_port()), device="kitchen", outbox=outbox)
        if is_started:
            publisher.start()
            wait_until(lambda: publisher.connection_state.failures, "a failure")
        started_s = time.monotonic()
        publisher.close()
        publisher.close()
        publisher.event_added()
        assert time.monotonic() - started_s < 1.0


def test_commands_reach_their_handler(broker: Broker, outbox: Outbox) -> None:
    """Each command calls its handler, marked if it was stored; a handler that fails ends nothing."""
    command = f"{ROOT}/camera/enabled/set"
    calls: list[tuple[bytes, bool]] = []

    def handle(payload: bytes, retained: bool) -> None:
        calls.append((payload, retained))
        if payload == b"fail":
            raise RuntimeError("an error in the daemon")

    with watching(broker, AVAILABILITY) as watcher:
        watcher.publish(command, "OFF", retain=True)
        publisher = Publisher(settings_of(broker), device="kitchen", outbox=outbox)
        publisher.subscribe("camera/enabled/set", handle)
        publisher.start()
        with closing(publisher):
            wait_until(lambda: calls == [(b"OFF", True)], "the stored command")
            publisher.subscribe("microphone/enabled/set", handle)
            for payload in ("fail", "ON"):
                watcher.publish(command, payload)
            wait_until(lambda: calls[1:] == [(b"fail", False), (b"ON", False)], "two commands")

            def has_reached_the_second() -> bool:
                watcher.publish(f"{ROOT}/microphone/enabled/set", "OFF")
                return (b"OFF", False) in calls

            wait_until(has_reached_the_second, "a command for a handler that was added during the connection")


def test_cleared_topic_is_gone_from_the_broker(broker: Broker, outbox: Outbox) -> None:
    """After `clear_retained` a later subscriber gets nothing from that topic."""
    with watching(broker, f"{ROOT}/#") as watcher, publishing(settings_of(broker), outbox) as publisher:
        publisher.publish_state("group/state", {})
        watcher.wait_for(f"{ROOT}/group/state", b"{}")
        publisher.clear_retained("group/state")
        watcher.wait_for(f"{ROOT}/group/state", b"")
        with watching(broker, f"{ROOT}/#") as later:
            later.wait_for(AVAILABILITY, b"online")
            assert later.on(f"{ROOT}/group/state") == []


def test_live_messages_need_a_connection_unsaved_events_wait(broker: Broker, outbox: Outbox) -> None:
    """While offline `stats` and `ha_event` are dropped; an event that was not stored is kept in memory."""
    publisher = Publisher(settings_of(broker), device="kitchen", outbox=outbox)
    with watching(broker, f"{ROOT}/#") as watcher, closing(publisher):
        publisher.publish_live("ha_event", {"event_type": "early"})
        publisher.publish_stats({"early": True})
        publisher.publish_unsaved(make_event(7))
        publisher.start()
        wait_until(lambda: watcher.on(EVENT), "the unsaved event")
        event = json.loads(watcher.on(EVENT)[0])
        assert event["id"] == "event-7"
        assert event["source"] == "emotion-edge/kitchen"
        assert "sequence" not in event
        publisher.publish_live("ha_event", {"event_type": "late"})
        publisher.publish_stats({"late": True})
        watcher.wait_for(f"{ROOT}/stats", b'{"late":true}')
        watcher.wait_for(f"{ROOT}/ha_event", b'{"event_type":"late"}')
        assert b"early" not in b"".join(watcher.on(f"{ROOT}/ha_event") + watcher.on(f"{ROOT}/stats"))


def test_unsaved_events_are_bounded_and_counted(outbox: Outbox) -> None:
    """Memory holds `max_live` events; those that are dropped are counted."""
    publisher = Publisher(MqttSettings(), device="kitchen", outbox=outbox, tuning=Tuning(max_live=3))
    for number in range(4):
        publisher.publish_unsaved(make_event(number))
    publisher.close()
    assert publisher.live_dropped == 1


def test_payloads_are_the_newest_permitted_states(outbox: Outbox) -> None:
    """`payloads` has JSON states as given, newest only; not bare words, cleared or withheld topics."""
    publisher = Publisher(
        MqttSettings(port=free_port()), device="kitchen", outbox=outbox, policy=Policy(restricted=True)
    )
    for number in range(2):
        publisher.publish_state("fatigue/state", {"number": number})
    publisher.publish_state("group/state", {"number": 2})
    publisher.clear_retained("group/state")
    publisher.publish_state("face/state", {"number": 3})
    publisher.publish_state("camera/enabled/state", "ON")
    payloads = publisher.payloads
    assert payloads == {"fatigue/state": {"number": 1}}
    payloads.clear()
    assert publisher.payloads, "a copy was returned"
    publisher.close()
