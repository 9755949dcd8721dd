"""A broker, or a proxy before it, that closes the connection on large messages without a stated maximum."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from edge.delivery import messages
from edge.delivery.mqtt.connection import packet_bytes
from edge.delivery.mqtt.size_trial import FLOOR_BYTES, UNLIMITED_BYTES, SizeTrial, probe_of_size
from edge.delivery.mqtt.tuning import TUNING, V311, Tuning
from edge.delivery.outbox.queue import Outbox
from edge.hosts import Address
from edge.settings import MqttSettings
from edge.values import encode
from tests.helpers.brokers import (
    BRISK,
    Mosquitto,
    is_empty,
    make_event,
    publishing,
    running,
    settings_of,
    wait_until,
    watching,
)
from tests.helpers.packets import PUBLISH, Action, Packet, closed_above, packet_path

ROOT = "emotion/kitchen"
EVENT = f"{ROOT}/event"
PROBE = f"{ROOT}/probe"
DISCOVERY = "homeassistant/device/kitchen/config"
HOME = Address("home", 1883)
OTHER = Address("other", 1883)
QUICK = replace(BRISK, stable_s=0.0, size_pause_s=(0.01, 0.1))
OLD = replace(QUICK, protocols=(V311,))


def sequences(payloads: list[bytes]) -> list[int]:
    return [json.loads(payload)["sequence"] for payload in payloads]


@contextmanager
def limited(directory: Path, limit: int, *, has_proxy: bool) -> Iterator[tuple[Mosquitto, MqttSettings]]:
    """Run a mosquitto that limits packets itself, or a proxy before it that does."""
    lines = [] if has_proxy else [f"max_packet_size {limit}"]
    with running(Mosquitto(directory, *lines)) as broker:
        if not has_proxy:
            yield broker, settings_of(broker)
            return
        with packet_path(broker.host, broker.port, closed_above(limit)) as path:
            yield broker, path.settings


@pytest.mark.parametrize(
    ("tuning", "has_proxy"),
    [(OLD, False), (OLD, True), (QUICK, True)],
    ids=["mosquitto, 3.1.1", "proxy, 3.1.1", "proxy, 5"],
)
def test_large_messages_are_left_out_and_named(
    tmp_path: Path, outbox: Outbox, tuning: Tuning, has_proxy: bool
) -> None:
    """The discovery message is left out and named, everything else flows, and the connection then lasts."""
    outbox.append_many([make_event(n, padding=1000 + n) for n in range(20)])
    discovery = encode({"padding": "x" * 7400})
    with (
        limited(tmp_path, 3000, has_proxy=has_proxy) as (broker, settings),
        watching(broker, f"{ROOT}/#") as watcher,
        publishing(settings, outbox, tuning=tuning) as publisher,
    ):
        publisher.publish_retained(DISCOVERY, discovery)
        publisher.publish_state("state", {"padding": "x" * 900})
        wait_until(is_empty(outbox), "an empty outbox")
        wait_until(lambda: "packet_too_large" in publisher.connection_state.faults, "the fault")
        size = packet_bytes(DISCOVERY, discovery)
        detail = publisher.connection_state.faults["packet_too_large"]
        assert f"{DISCOVERY} has {size} bytes, connections end at more than" in detail
        wait_until(lambda: publisher.connection_state.connected, "a connection")
        since_ns = publisher.connection_state.since_ns
        outbox.append(make_event(20, padding=900))
        publisher.event_added()
        wait_until(lambda: len(set(sequences(watcher.on(EVENT)))) == 21, "the last event")
        assert list(dict.fromkeys(sequences(watcher.on(EVENT)))) == list(range(1, 22))
        wait_until(is_empty(outbox), "an empty outbox")
        assert publisher.connection_state.since_ns == since_ns, "the connection lasts"
    assert outbox.counts().refused == 0


def test_event_above_an_unstated_limit_is_a_dead_letter(tmp_path: Path, outbox: Outbox) -> None:
    """Probes of its size end the connection, smaller ones do not: it is refused for its size, in order."""
    outbox.append_many([make_event(n, padding=4000 if n == 5 else 800) for n in range(10)])
    with (
        limited(tmp_path, 3000, has_proxy=True) as (broker, settings),
        watching(broker, EVENT) as watcher,
        publishing(settings, outbox, tuning=OLD),
    ):
        wait_until(is_empty(outbox), "an empty outbox")
        wait_until(lambda: 10 in sequences(watcher.on(EVENT)), "the last event")
        assert list(dict.fromkeys(sequences(watcher.on(EVENT)))) == [1, 2, 3, 4, 5, 7, 8, 9, 10]
    assert [(letter.sequence, letter.reason) for letter in outbox.refused()] == [(6, "packet_too_large")]


def test_statistics_above_an_unstated_limit_are_left_out(tmp_path: Path, outbox: Outbox) -> None:
    """A message without acknowledgement is found too, and the connection then lasts."""
    with (
        limited(tmp_path, 3000, has_proxy=True) as (_, settings),
        publishing(settings, outbox, tuning=OLD) as publisher,
    ):

        def is_left_out() -> bool:
            publisher.publish_stats({"padding": "x" * 4000})
            return "packet_too_large" in publisher.connection_state.faults

        wait_until(is_left_out, "the fault")
        since_ns = publisher.connection_state.since_ns
        for number in range(20):
            publisher.publish_stats({"padding": "x" * 4000})
            outbox.append(make_event(number))
            publisher.event_added()
        wait_until(is_empty(outbox), "an empty outbox")
        assert publisher.connection_state.since_ns == since_ns


def after(count: int) -> Callable[[random.Random, Packet], bool]:
    """Return the condition that this is message `count` of its connection."""
    return lambda _chance, packet: packet.number == count


@pytest.mark.parametrize(
    "is_end",
    [after(3), after(5), after(7), lambda chance, _packet: chance.random() < 0.3],
    ids=["after 3", "after 5", "after 7", "at random"],
)
@pytest.mark.parametrize("tuning", [OLD, QUICK], ids=["3.1.1", "5"])
def test_lost_connections_blame_no_size(
    mosquitto: Mosquitto,
    outbox: Outbox,
    tuning: Tuning,
    is_end: Callable[[random.Random, Packet], bool],
) -> None:
    """Fifteen connections end, whatever is in flight: all events arrive in order, nothing is left out."""
    outbox.append_many([make_event(n, padding=1000 + 10 * n) for n in range(60)])
    chance, ends = random.Random(11), 0

    def choose(packet: Packet) -> Action:
        nonlocal ends
        if packet.from_device and packet.kind == PUBLISH and ends < 15 and is_end(chance, packet):
            ends += 1
            return "close"
        return "pass"

    with (
        packet_path(mosquitto.host, mosquitto.port, choose) as path,
        watching(mosquitto, f"{ROOT}/#") as watcher,
        publishing(path.settings, outbox, tuning=tuning) as publisher,
    ):
        publisher.publish_state("state", {"padding": "x" * 7400})
        wait_until(is_empty(outbox), "an empty outbox", timeout_s=60)
        wait_until(lambda: 60 in sequences(watcher.on(EVENT)), "the last event")
        assert list(dict.fromkeys(sequences(watcher.on(EVENT)))) == list(range(1, 61))
        wait_until(lambda: watcher.on(f"{ROOT}/state"), "the state")
        assert "packet_too_large" not in publisher.connection_state.faults
    assert outbox.counts().refused == 0


def pass_small_probes(trial: SizeTrial, held: int, *, now_s: float = 0.0) -> int:
    """Have the probes acknowledged that go before the large one, which is sent; return their number."""
    trial.begin(HOME, now_s=now_s)
    assert trial.holds(held)
    assert trial.next_probe(now_s) is None, "a pause first"
    passed = 0
    while packet_bytes(PROBE, trial.next_probe(now_s + 1.0) or b"") < FLOOR_BYTES:
        assert trial.is_probing
        assert trial.handle_ack(100)
        passed += 1
    return passed


def lose(trial: SizeTrial, held: int, *, now_s: float = 0.0) -> None:
    """Lose one connection with a probe of `held` bytes in flight, after the small ones."""
    pass_small_probes(trial, held, now_s=now_s)
    trial.connection_lost("closed", [held], now_s=now_s)


def doubting(size: int) -> SizeTrial:
    """Return a trial after a connection that ended with a message of `size` bytes in flight."""
    trial = SizeTrial(PROBE)
    trial.begin(HOME, now_s=0.0)
    trial.connection_lost("closed", [size], now_s=0.0)
    return trial


@pytest.mark.parametrize(("losses", "limit"), [(4, UNLIMITED_BYTES), (5, 7399)])
def test_limit_needs_losses_in_a_row(losses: int, limit: int) -> None:
    """The number that is needed, and one fewer; the limit belongs to that broker."""
    trial = doubting(7400)
    for _ in range(losses):
        lose(trial, 7400)
    assert trial.limit_bytes == limit
    trial.begin(OTHER, now_s=0.0)
    assert trial.limit_bytes == UNLIMITED_BYTES
    assert not trial.holds(7400)


def test_acknowledged_probe_ends_the_doubt() -> None:
    """After a probe of their size the messages are sent, and losses count from the start."""
    trial = doubting(7400)
    for _ in range(4):
        lose(trial, 7400)
    assert pass_small_probes(trial, 7400) == 5, "each loss adds one"
    trial.handle_ack(7400)
    assert not trial.holds(7400)
    assert trial.holds(7401)
    trial.connection_lost("closed", [], now_s=0.0)
    lose(trial, 7401)
    assert trial.limit_bytes == UNLIMITED_BYTES


@pytest.mark.parametrize(
    ("size", "is_held"), [(FLOOR_BYTES, False), (FLOOR_BYTES + 1, True)], ids=["floor", "one more"]
)
def test_small_messages_are_never_held(size: int, is_held: bool) -> None:
    """Every broker takes packets of the floor, and what it has acknowledged before."""
    trial = doubting(7400)
    assert trial.holds(size) is is_held
    assert not trial.handle_ack(2000)
    assert not trial.holds(2000)
    assert trial.holds(2001)


@pytest.mark.parametrize("reason", ["session_taken_over", "incoming_too_large"])
def test_losses_with_another_cause_do_not_count(reason: str) -> None:
    """Another client that ends the connection puts no size in doubt."""
    trial = SizeTrial(PROBE)
    trial.begin(HOME, now_s=0.0)
    trial.connection_lost(reason, [7400], now_s=0.0)
    assert not trial.holds(7400)


@pytest.mark.parametrize(("after_s", "is_tried"), [(TUNING.limit_retry_s, True), (599.9, False)])
def test_limit_is_tried_again(after_s: float, is_tried: bool) -> None:
    """A connection ten minutes later tries again, and one more loss confirms the limit."""
    trial = doubting(7400)
    for _ in range(5):
        lose(trial, 7400)
    trial.begin(HOME, now_s=after_s)
    assert (trial.limit_bytes == UNLIMITED_BYTES) is is_tried
    if is_tried:
        lose(trial, 7400, now_s=after_s)
        assert trial.limit_bytes == 7399


def test_forbidden_probe_sets_no_limit() -> None:
    """Where the small probe itself ends the connections, nothing is known, and the messages are sent."""
    trial = doubting(7400)
    for _ in range(5):
        trial.begin(HOME, now_s=0.0)
        assert trial.holds(7400)
        trial.next_probe(0.0)
        assert trial.next_probe(1.0) is not None
        trial.connection_lost("closed", [], now_s=0.0)
    trial.begin(HOME, now_s=0.0)
    assert not trial.holds(7400)
    assert trial.limit_bytes == UNLIMITED_BYTES


def test_small_probe_in_flight_clears_the_losses() -> None:
    """A connection that ends without a large message shows another cause."""
    trial = doubting(7400)
    for _ in range(4):
        lose(trial, 7400)
    trial.begin(HOME, now_s=0.0)
    assert trial.holds(7400)
    trial.next_probe(0.0)
    assert trial.next_probe(1.0) is not None
    trial.connection_lost("closed", [], now_s=0.0)
    assert pass_small_probes(trial, 7400) == 1
    trial.connection_lost("closed", [], now_s=0.0)
    assert trial.limit_bytes == UNLIMITED_BYTES


def test_reason_code_needs_one_loss() -> None:
    """An MQTT 5 broker that names the size leaves no doubt."""
    trial = doubting(7400)
    pass_small_probes(trial, 7400)
    trial.connection_lost("packet_too_large", [], now_s=0.0)
    assert trial.limit_bytes == 7399


@pytest.mark.parametrize("size", [600, 16_384, 16_390, 20_000])
def test_probe_has_the_size_of_the_message(size: int) -> None:
    """Also where the length field of the packet grows by a byte."""
    message = b"x" * (size - 40)
    size = packet_bytes(EVENT, message)
    assert packet_bytes(PROBE, probe_of_size(PROBE, size)) == size
    assert probe_of_size(PROBE, 0) != probe_of_size(PROBE, 0)
    assert len(probe_of_size(PROBE, 0)) == len(encode(messages.probe("0" * 16)))
