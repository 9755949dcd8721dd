"""Hostile values in the configuration: an error of bounded length, exit code 3, nothing started."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge.config import load_config, parse_config, read_password
from edge.delivery.outbox.queue import Outbox
from edge.delivery.publisher import Publisher
from edge.errors import ConfigError
from tests.helpers.brokers import is_empty, make_event, publishing, settings_of, wait_until

ROOT = Path(__file__).parents[2]
LONGEST = 400  # characters of a message, whatever the value was

IDS = {
    "hash": "#",
    "plus": "+",
    "slash": "a/b",
    "nul": "a\0b",
    "emoji": "\N{GRINNING FACE}",
    "10-kB": "x" * 10_240,
    "empty": "",
    "capital": "Kitchen",
    "space": "a b",
    "newline": "kitchen\n",
    "dots": "../etc",
    "dot": "a.b",
    "65": "x" * 65,
    "surrogate-like": "\uffff",
}
PREFIXES = {
    **IDS,
    "slash": "/emotion",
    "capital": "emotion/",
    "65": "emotion//room",
    "system": "$SYS",
    "wildcard": "emotion/#",
    "10-kB": "x" * 10_240 + "+",
}


def sentence_of(error: ConfigError, key: str) -> str:
    text = str(error)
    assert key in text
    assert len(text) < LONGEST, f"{len(text)} characters"
    assert text.isprintable(), "control characters reach the terminal"
    return text


@pytest.mark.parametrize("value", IDS.values(), ids=IDS)
def test_hostile_device_id_is_refused(tmp_path: Path, value: str) -> None:
    """An id that would change the topic or the outbox's file name is refused."""
    path = tmp_path / "config.toml"
    path.write_text(
        f"version = 1\n[device]\nid = {json.dumps(value, ensure_ascii=False)}\n", encoding="utf-8"
    )
    with pytest.raises(ConfigError) as refused:
        load_config(path, environ={})
    assert refused.value.exit_code == 3
    sentence_of(refused.value, "device.id")


@pytest.mark.parametrize("value", PREFIXES.values(), ids=PREFIXES)
def test_hostile_prefix_is_refused(value: str) -> None:
    """A prefix with wildcards, empty levels or the broker's own tree is refused."""
    with pytest.raises(ConfigError) as refused:
        parse_config({"mqtt": {"prefix": value}})
    sentence_of(refused.value, "mqtt.prefix")


@pytest.mark.parametrize("value", [value for value in IDS.values() if "\0" not in value])
def test_hostile_device_id_in_the_environment_ends_with_3(tmp_path: Path, value: str) -> None:
    """The command prints one error and exits with 3."""
    done = subprocess.run(
        [sys.executable, "-m", "edge", "config", "check"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "EMOTION_EDGE__DEVICE__ID": value, "XDG_STATE_HOME": str(tmp_path)},
        timeout=60,
        check=False,
    )
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.startswith("emotion-edge: config: device.id = ")
    assert len(done.stderr) < LONGEST
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        *itertools.product(["ca_file", "key_file", "password_file"], ["missing", "directory", "garbage"]),
        *itertools.product(["ca_file", "key_file", "password_file"], ["nul", "10-kB"]),
        *[("ca_file", "key-only"), ("key_file", "key-only")],
    ],
)
def test_hostile_file_is_a_config_error(tmp_path: Path, outbox: Outbox, key: str, kind: str) -> None:
    """A path to an unusable file is an error at the start, not a traceback of a thread."""
    path = tmp_path / "file.pem"
    if kind == "directory":
        path.mkdir()
    elif kind == "garbage":
        path.write_bytes(os.urandom(4096) + b"\xff")
    elif kind == "key-only":
        path.write_text("-----BEGIN PRIVATE KEY-----\nno\n-----END PRIVATE KEY-----\n")
    name = {"nul": f"{path}\0", "10-kB": "/" + "x" * 10_240}.get(kind, str(path))
    if path.is_file():
        path.chmod(0o600)
    more: dict[str, dict[str, Any]] = {
        "ca_file": {"tls": True},
        "key_file": {"tls": True, "cert_file": name},
        "password_file": {"username": "kitchen"},
    }

    def start() -> None:
        config = parse_config({"mqtt": {key: name, **more[key]}})
        password = read_password(config.mqtt, environ={})
        Publisher(config.mqtt, device="kitchen", outbox=outbox, password=password)

    with pytest.raises(ConfigError, match=rf"^(config: )?(mqtt\.cert_file .*)?mqtt\.{key} ") as refused:
        start()
    assert refused.value.exit_code == 3


def test_daemon_publishes_after_a_refusal(mosquitto: object, outbox: Outbox) -> None:
    """A refused configuration has no effect on a valid one after it."""
    with pytest.raises(ConfigError):
        parse_config({"device": {"id": "#"}})
    with publishing(settings_of(mosquitto), outbox) as publisher:
        outbox.append(make_event(1))
        publisher.event_added()
        wait_until(is_empty(outbox), "an empty outbox")
