"""Random and hostile configurations: accepted and usable, or refused with one short sentence."""

from __future__ import annotations

import codecs
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.config import load_config, outbox_path, parse_config, switches_path, to_toml
from edge.delivery.home_assistant.entities import discovery_payload
from edge.errors import ConfigError, ModelError
from edge.host.switches import read_switches
from edge.inference.card import TASK_KEYS
from edge.inference.models import find_card
from edge.settings import Config, Section

LONGEST = 700  # characters of an error, with the path of the file

TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [
            *("", ".", "..", "/", "~", "~nouser", "~nouser/a.db", "a" * 300, "x" * 70_000, "a\0b", "\x1b[2J"),
            *("file:~nouser/a.mp4", "file:", "picamera:" + "9" * 5000, "RTSP://me:canary@cam/1", "[::1]:1"),
            *("a..b", "a" * 64 + ".local", "b:99999", "gstreamer:'", "delegate:/x?=", "127.0.0.1:0", "é:80"),
        ]
    ),
)
LITERALS = st.one_of(
    TEXTS.map(lambda text: _quoted(text)),
    st.integers().map(str),
    st.floats().map(repr),
    st.sampled_from(
        [
            *("9" * 5000, "0x" + "f" * 5000, "-" + "9" * 30, "inf", "-inf", "nan", "1e308", "1e-300", "true"),
            *(
                "[" * 2000,
                "[" * 500 + "]" * 500,
                "[" * 20 + "]" * 20,
                "1979-05-27",
                "07:32:00",
                "{a = {b = 1}}",
            ),
            *('["a", "b"]', "[[1]]", "{", "'''", "\ufeff"),
        ]
    ),
)
SECTIONS = {name: field.annotation for name, field in Config.model_fields.items() if name != "version"}
KEYS = st.sampled_from(
    [(name, key) for name, section in SECTIONS.items() for key in cast(type[Section], section).model_fields]
)


def _quoted(text: str) -> str:
    return '"' + "".join(c if c.isalnum() else f"\\U{ord(c):08x}" for c in text) + '"'


def use(config: Config) -> None:
    """Do what `run` does with the values first; a missing model is an error of its own."""
    assert parse_config(tomllib.loads(to_toml(config))) == config or "***" in to_toml(config)
    read_switches(switches_path(config))
    discovery_payload(config)
    assert outbox_path(config).name
    assert config.mqtt.addresses
    assert config.dashboard.address is None or config.dashboard.address.host
    for task in TASK_KEYS:
        with suppress(ModelError):
            find_card(config.models, task)


def load_or_refuse(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "c.toml"
        path.write_bytes(content)
        try:
            config = load_config(path, environ={})
        except ConfigError as error:
            check_sentence(str(error))
            return
        use(config)


def check_sentence(text: str) -> None:
    assert len(text) < LONGEST
    assert text.isprintable()
    assert "canary" not in text


@given(st.lists(st.tuples(KEYS, LITERALS), max_size=3))
@settings(max_examples=400, deadline=None, derandomize=True)
def test_random_values_are_used_or_refused(pairs: list[tuple[tuple[str, str], str]]) -> None:
    """Any value in any key is usable, or refused with a sentence without its credentials."""
    load_or_refuse("\n".join(f"{name}.{key} = {value}" for (name, key), value in pairs).encode())


@given(
    st.one_of(
        st.binary(max_size=60), st.text(alphabet="[]{}=\"'.#\n\\aé\ufeff1", max_size=60).map(str.encode)
    )
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_random_files_are_read_or_refused(content: bytes) -> None:
    """Any bytes are a configuration or one sentence."""
    load_or_refuse(content)


@given(KEYS, TEXTS, st.integers(1, 4))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_random_variables_are_used_or_refused(key: tuple[str, str], value: str, levels: int) -> None:
    """Any text in a variable is usable, or refused with a sentence."""
    name = "__".join((key * levels)[: levels + 1]).upper()
    try:
        use(load_config(Path("/dev/null"), environ={f"EMOTION_EDGE__{name}": value}))
    except ConfigError as error:
        check_sentence(str(error))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"mqtt.port = " + b"9" * 5000, "4300"),
        (b"mqtt.port = 0x" + b"f" * 5000, r"mqtt\.port is an integer above"),
        (b"mqtt.port = " + b"[" * 5000, "nested too deeply"),
        (b"mqtt.port = " + b"[" * 20 + b"]" * 20, r"nested too deeply"),
        (b'outbox.path = "~nouser/a"', "no such home directory"),
        (b'outbox.path = "/"', r"outbox\.path"),
        (b"mqtt.stats_interval_s = inf", r"mqtt\.stats_interval_s = inf: .*finite"),
        (b"outbox.max_age_s = nan", r"outbox\.max_age_s"),
        (b'mqtt.username = "a\\u0000b"', r"mqtt\.username = 'a\\x00b': has a NUL"),
        (b'mqtt.username = "' + b"x" * 70_000 + b'"', "has 70000 bytes; use at most 4096"),
        (b'"' + b"k" * 70_000 + b'" = 1', "unknown key"),
        ("device.id = 'a'".encode("utf-16"), "the file is UTF-16; save it as UTF-8"),
        (codecs.BOM_UTF16_BE + "a".encode("utf-16-be"), "the file is UTF-16"),
        (b"device.id = '\xff'", "not UTF-8 at byte 13"),
        (b"#" * (1 << 20) + b"\n", "larger than"),
    ],
)
def test_hostile_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    """Each is one sentence of bounded length."""
    path = tmp_path / "c.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path, environ={})
    check_sentence(str(caught.value))


@pytest.mark.parametrize(
    ("host", "is_valid"),
    [("a" * 63 + ".b", True), ("a" * 64 + ".b", False), ("a..b", False), ("a.", True)],
)
def test_name_that_the_resolver_refuses_is_refused(host: str, is_valid: bool) -> None:
    """A part of a name has 1 to 63 characters; the resolver raises an error of its own for others."""
    if is_valid:
        assert parse_config({"mqtt": {"host": host}}).mqtt.addresses[0].host == host
        return
    with pytest.raises(ConfigError, match="not a host name"):
        parse_config({"mqtt": {"host": host}})


def test_model_with_an_endless_name_is_a_model_error() -> None:
    """The name cannot be a file: exit code 4."""
    config = parse_config({"models": {"face": "x" * 300}})
    with pytest.raises(ModelError, match=r"models\.face x+\.\.\. \(300 characters\): cannot be read"):
        find_card(config.models, "face")


@pytest.mark.parametrize("name", ["rtsp:\\\\me:can\nary@h", "a/" * 400 + "x.json", "\x1b[2J", "\u202e.json"])
def test_odd_name_of_a_model_is_a_short_sentence(name: str) -> None:
    """The error is printable, has less than 500 characters and no credentials."""
    with pytest.raises(ModelError, match=r"models\.face ") as caught:
        find_card(parse_config({"models": {"face": name}}).models, "face")
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()
    assert not {"can", "ary"} & set(re.split(r"\W|\\n", str(caught.value)))


def test_shown_config_is_utf_8_in_every_locale(tmp_path: Path) -> None:
    """`config show` prints TOML, whatever the encoding of the terminal is."""
    path = tmp_path / "c.toml"
    path.write_text('mqtt.username = "K\u00fcche"\n', encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "edge", "config", "show", "--config", str(path)],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        check=True,
        timeout=60,
    )
    assert tomllib.loads(done.stdout.decode())["mqtt"]["username"] == "K\u00fcche"


def test_byte_order_mark_is_read(tmp_path: Path) -> None:
    """A UTF-8 file from an editor on Windows is a configuration."""
    path = tmp_path / "c.toml"
    path.write_bytes(codecs.BOM_UTF8 + b'device.id = "kitchen"\r\n')
    assert load_config(path, environ={}).device.id == "kitchen"
