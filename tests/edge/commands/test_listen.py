"""`emotion-edge listen`: each event once, gaps reported, exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from edge.commands.listen import parse_since
from edge.delivery.consumer import Consumer
from edge.delivery.messages import load_schema
from tests.helpers.brokers import Broker, Mosquitto, NatsServer, make_event, running, wait_until, watching

EVENT = "emotion/kitchen/event"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def payload(number: int, *, age_s: float = 0, event_id: str = "") -> bytes:
    """Return an event of the device `kitchen` with a sequence and a time."""
    body = make_event(number).to_cloudevent(device="kitchen", sequence=number)
    moment = datetime.now(UTC) - timedelta(seconds=age_s)
    return json.dumps({**body, "time": moment.isoformat(), "id": event_id or body["id"]}).encode()


def test_consumer_takes_each_event_once_and_counts_what_is_missing() -> None:
    """Repeated ids are dropped and gaps are counted; late events and a restart are not gaps."""
    consumer = Consumer()
    taken = [consumer.take(payload(n)) for n in (5, 6, 6, 9, 7, 10)]
    assert [event and event.missing for event in taken] == [None, 0, None, 2, None, 0]
    assert taken[2] is None
    assert taken[4] is not None
    again = [consumer.take(payload(n, event_id=f"new-{n}")) for n in (1, 2, 4)]
    assert [event and event.missing for event in again] == [None, 0, 1]


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b"no json", b"\xff", b'"id"', b"[" * 200_000])
def test_consumer_refuses_other_payloads(text: bytes) -> None:
    """A payload that is not an event raises ValueError and is not remembered."""
    with pytest.raises(ValueError, match=r".+"):
        Consumer().take(text)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90s", NOW - timedelta(seconds=90)),
        ("1.5h", NOW - timedelta(minutes=90)),
        ("2d", NOW - timedelta(days=2)),
        ("2026-01-02T03:04:05Z", NOW),
        ("2026-01-02T05:04:05.000+02:00", NOW),
    ],
)
def test_since_is_a_time_or_a_duration(text: str, moment: datetime) -> None:
    """A duration counts back from now; a time is used as it is."""
    assert parse_since(text, now=NOW) == moment


@pytest.mark.parametrize("text", ["", "10", "-5m", "10 m", "2026-01-02", "2026-01-02T03:04:05", "yesterday"])
def test_since_without_unit_or_zone_is_refused(text: str) -> None:
    """A number without a unit and a time without a zone are ambiguous."""
    with pytest.raises(ValueError, match="neither a duration"):
        parse_since(text, now=NOW)


class Listening:
    """The command as a process, and its output."""

    def __init__(self, broker: Broker, directory: Path, *words: str, **more: str) -> None:
        self.out, self.err = directory / "out.txt", directory / "err.txt"
        env = {**os.environ, "EMOTION_EDGE__MQTT__PORT": str(broker.port), **more}
        with self.out.open("wb") as out, self.err.open("wb") as err:
            command = [sys.executable, "-m", "edge", "listen", *words]
            self.process = subprocess.Popen(command, env=env, stdout=out, stderr=err)

    def lines(self) -> list[str]:
        return self.out.read_text().splitlines()


@contextmanager
def listening(broker: Broker, directory: Path, *words: str, **more: str) -> Iterator[Listening]:
    """Run the command while the block runs, after it has received a first message."""
    command = Listening(broker, directory, *words, **more)
    try:
        with watching(broker) as other:
            sent = 0

            def is_listening() -> bool:
                nonlocal sent
                sent += 1
                other.publish("emotion/fence/event", json.dumps({"id": f"fence-{sent}"}))
                return "fence" in command.out.read_text()

            wait_until(is_listening, "the first message")
        yield command
    finally:
        command.process.kill()
        command.process.wait(10)


def test_json_lines_fit_their_schema_and_report_gaps(broker: Broker, tmp_path: Path) -> None:
    """Each event once with the number of missing ones, without old ones; Ctrl-C exits with 130."""
    with listening(broker, tmp_path, "--json", "--since", "1h") as command, watching(broker) as other:
        for number, age_s in ((1, 0), (2, 7200), (2, 7200), (3, 0), (3, 0), (6, 0)):
            other.publish(EVENT, payload(number, age_s=age_s))

        def events() -> list[Any]:
            found = [json.loads(line) for line in command.lines()]
            return [each for each in found if each["topic"] == EVENT]

        wait_until(lambda: len(events()) == 3, "three events")
        for line in command.lines():
            jsonschema.Draft202012Validator(load_schema("heard")).validate(json.loads(line))
        assert [each["payload"]["sequence"] for each in events()] == [1, 3, 6]
        assert [each["missing"] for each in events()] == [None, 0, 2]
        command.process.send_signal(signal.SIGINT)
        assert command.process.wait(10) == 130
    assert f"{EVENT}: 2 events are missing before this one" in command.err.read_text()
    assert "Traceback" not in command.err.read_text()


def test_events_as_text(mosquitto: Mosquitto, tmp_path: Path) -> None:
    """Events as time, device, type and change; other messages as text of limited length."""
    topics = ("emotion/#",)
    with listening(mosquitto, tmp_path, *topics) as command, watching(mosquitto) as other:
        other.publish(EVENT, payload(1))
        other.publish("emotion/kitchen/availability", "online")
        other.publish("emotion/kitchen/state", b"\xff" * 1000)
        wait_until(lambda: "kitchen/state" in command.out.read_text(), "the last line")
        text = command.out.read_text()
    assert re.search(r"^\d\d:\d\d:\d\d\.\d{3}  kitchen      emotion\.changed    room$", text, re.MULTILINE)
    assert "emotion/kitchen/availability: online\n" in text
    assert max(map(len, text.splitlines())) < 300


@pytest.mark.parametrize("words", [("emotion/#",), ("--json", "emotion/#")])
def test_message_that_cannot_be_printed_is_skipped(
    mosquitto: Mosquitto, tmp_path: Path, words: tuple[str, ...]
) -> None:
    """JSON nested too deeply, on any topic, is skipped and counted; the next event is printed."""
    with listening(mosquitto, tmp_path, *words) as command, watching(mosquitto) as other:
        for topic in (EVENT, "emotion/kitchen/availability"):
            other.publish(topic, b"[" * 200_000)
            other.publish(topic, b'{"id":' * 40_000)
        other.publish(EVENT, payload(1))
        wait_until(lambda: "emotion.changed" in command.out.read_text(), "the event after it")
        assert command.process.poll() is None
    assert "4 skipped so far" in command.err.read_text()
    assert "Traceback" not in command.err.read_text()


def test_refusal_is_exit_code_6(tmp_path: Path) -> None:
    """A wrong password, or no permission for any topic, ends the command with an error."""
    (tmp_path / "m").mkdir()
    with running(Mosquitto(tmp_path / "m", "allow_anonymous false")) as broker:
        command = Listening(broker, tmp_path)
        assert command.process.wait(20) == 6
        assert "not_authorized; check mqtt.username" in command.err.read_text()
    permissions = """
        mqtt { listen: "127.0.0.1:{port}" }
        authorization { users: [ { user: "u", password: "pw", permissions: { subscribe: ["$MQTT.>"] } } ] }
    """
    secret = tmp_path / "password"
    secret.write_text("pw")
    secret.chmod(0o600)
    with running(NatsServer(tmp_path, permissions)) as nats:
        access = {"EMOTION_EDGE__MQTT__USERNAME": "u", "EMOTION_EDGE__MQTT__PASSWORD_FILE": str(secret)}
        command = Listening(nats, tmp_path, **access)
        assert command.process.wait(20) == 6
        assert "no topic may be read" in command.err.read_text()


def test_closed_pipe_is_not_an_error(mosquitto: Mosquitto) -> None:
    """`emotion-edge listen | head -1` exits with 0 and without a traceback."""
    env = {**os.environ, "EMOTION_EDGE__MQTT__PORT": str(mosquitto.port)}
    with subprocess.Popen(
        [sys.executable, "-m", "edge", "listen"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        with watching(mosquitto) as other:
            number = 0

            def ended() -> bool:
                nonlocal number
                number += 1
                other.publish(EVENT, payload(number))
                return process.poll() is not None

            wait_until(ended, "the end")
        assert process.returncode == 0
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()
