"""Configuration: precedence, errors with a remedy, secrets, and what `config show` prints."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from edge.__main__ import main
from edge.config import load_config, parse_config, read_password, to_toml
from edge.errors import ConfigError
from edge.settings import Config, Section


def test_environment_beats_file_beats_default(tmp_path: Path) -> None:
    """Each level overrides the one below it."""
    path = tmp_path / "config.toml"
    path.write_text('version = 1\n[mqtt]\nhost = "file"\nport = 2000\n')
    config = load_config(path, environ={"EMOTION_EDGE__MQTT__HOST": "10"})
    assert (config.mqtt.host, config.mqtt.port, config.mqtt.keepalive_s) == ("10", 2000, 30)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"camra": {}}, "did you mean camera"),
        ({"camera": {"fsp": 3}}, "camera.fsp: unknown key; did you mean fps"),
        ({"camera": {"fps": "x"}}, "camera.fps = 'x'"),
        ({"camera": {"source": "0"}}, "emotion-edge devices"),
        ({"device": {"id": "Küche"}}, "device.id"),
        ({"device": {"id": "a/b"}}, "device.id"),
        ({"fusion": {"enter": 0.3, "exit": 0.4}}, "hysteresis"),
        ({"mqtt": {"prefix": "a/#"}}, "mqtt.prefix"),
        ({"version": 2}, "version = 2"),
    ],
)
def test_error_names_key_and_remedy(raw: dict[str, object], message: str) -> None:
    """The error names the key and the remedy."""
    with pytest.raises(ConfigError, match=message):
        parse_config(raw)


def test_world_readable_password_is_refused(tmp_path: Path) -> None:
    """A password file that all users may read is an error; one for the owner alone is read."""
    secret = tmp_path / "password"
    secret.write_text("canary\n")
    raw = {"mqtt": {"username": "me", "password_file": str(secret)}}
    secret.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        parse_config(raw)
    secret.chmod(0o600)
    config = parse_config(raw)
    assert read_password(config.mqtt) == "canary"
    assert "canary" not in to_toml(config)


def test_shown_config_is_valid_and_equal(tmp_path: Path) -> None:
    """`config check` accepts what `config show` prints, and it has the same values."""
    config = parse_config(
        {
            "device": {"id": "kitchen", "context": "workplace"},
            "camera": {"source": 'gstreamer:videotestsrc name="a\\b\t\x7f\u2028"'},
            "mqtt": {"host": ["a.local", "[::1]:1884"], "tls": True},
            "outbox": {"path": str(tmp_path / "o\nutbox.db")},
        }
    )
    path = tmp_path / "shown.toml"
    path.write_text(to_toml(config), encoding="utf-8")
    assert main(["config", "check", "--config", str(path)]) == 0
    assert load_config(path, environ={}) == config


def test_shown_config_explains_every_key() -> None:
    """A comment stands above each section and each key, also above an unset key."""
    lines = to_toml(Config()).splitlines()
    keys = [
        (above, line)
        for above, line in itertools.pairwise(["", *lines])
        if re.fullmatch(r"(\[\w+\]|(# )?\w+ =.*)", line)
    ]
    assert len(keys) == 1 + sum(
        1 + len(section.model_fields) for section in Section.__subclasses__() if section is not Config
    )
    for above, line in keys:
        assert re.match(r"# \S.*\.$", above), line


def test_shown_config_masks_the_camera_login() -> None:
    """User and password of a network camera are not printed."""
    shown = to_toml(parse_config({"camera": {"source": "rtsp://me:canary@camera/1"}}))
    assert "canary" not in shown
    assert 'source = "rtsp://***@camera/1"' in shown


def test_relative_paths_start_at_the_config_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths in the file start at its directory, paths in a variable at the current directory."""
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    site.mkdir()
    elsewhere.mkdir()
    secret = site / "mqtt-password"
    secret.write_text("word")
    secret.chmod(0o600)
    (site / "room.toml").write_text(
        '[camera]\nsource = "file:clips/a.mp4?loop"\n[microphone]\nsource = "file:/b.wav"\n'
        '[mqtt]\nusername = "me"\npassword_file = "mqtt-password"\n[models]\ndirectory = "../models"\n'
    )
    monkeypatch.chdir(tmp_path)
    named = Path("site/room.toml")
    config = load_config(named, environ={"EMOTION_EDGE__OUTBOX__PATH": "elsewhere/outbox.db"})
    assert config.mqtt.password_file == secret
    assert read_password(config.mqtt) == "word"
    assert config.camera.source == f"file:{site}/clips/a.mp4?loop"
    assert config.microphone.source == "file:/b.wav"
    assert config.models.directory == site / "../models"
    assert config.outbox.path == elsewhere / "outbox.db"
    assert load_config(site / "room.toml", environ={}).camera.source == config.camera.source


@pytest.mark.parametrize("source", ["none", "auto", "fake:pattern", "rtsp://a/file:b"])
def test_sources_that_are_not_files_stay(tmp_path: Path, source: str) -> None:
    """Only the path of a `file:` source is made absolute."""
    path = tmp_path / "c.toml"
    path.write_text(f'[camera]\nsource = "{source}"\n')
    assert load_config(path, environ={}).camera.source == source
