"""Addresses of one or several brokers, and the checks of files with secrets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge.config import load_config, parse_config, read_password, to_toml
from edge.errors import ConfigError
from edge.hosts import Address, parse_address


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("broker.local", "broker.local", 1883),
        ("broker.local:1884", "broker.local", 1884),
        ("my_broker", "my_broker", 1883),
        ("10.0.0.7", "10.0.0.7", 1883),
        ("10.0.0.7:1", "10.0.0.7", 1),
        ("::1", "::1", 1883),
        ("[::1]", "::1", 1883),
        ("[fe80::1]:65535", "fe80::1", 65535),
    ],
)
def test_name_with_and_without_a_port(text: str, host: str, port: int) -> None:
    """A port after the name overrides the default port; an IPv6 address with a port needs brackets."""
    assert parse_address(text, default_port=1883) == Address(host, port)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "a b", "mqtt://broker", "broker/path", "broker:", "broker:0", "broker:65536", "broker:x"),
        *("a:1:2", "[broker]:1", "br\0oker", "-x", "brök", "a" * 300),
    ],
)
def test_invalid_address_is_refused(text: str) -> None:
    """Schemes, paths, spaces and ports out of range are errors of one sentence."""
    with pytest.raises(ConfigError, match=r"mqtt\.host .*(name|port|NUL)"):
        parse_config({"mqtt": {"host": text}})


def test_several_brokers_in_file_and_environment(tmp_path: Path) -> None:
    """A list in the file and commas in the variable; `config show` prints what can be read again."""
    file = tmp_path / "config.toml"
    file.write_text('[mqtt]\nhost = ["a.local", "b.local:1884", "[::1]:1883"]\nport = 8883\n')
    config = load_config(file, environ={})
    assert [str(a) for a in config.mqtt.addresses] == ["a.local:8883", "b.local:1884", "[::1]:1883"]
    file.write_text(to_toml(config))
    assert load_config(file, environ={}) == config
    varied = load_config(file, environ={"EMOTION_EDGE__MQTT__HOST": "x, y:1"})
    assert varied.mqtt.addresses == (Address("x", 8883), Address("y", 1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"host": []}, "name each broker once"),
        ({"host": ["a", "a:1883"]}, "name each broker once"),
        ({"cert_file": "x"}, "set both or neither"),
        ({"ca_file": "x"}, "set tls = true"),
        ({"cert_file": "x", "key_file": "y"}, "set tls = true"),
        ({"transport": "udp"}, "transport"),
        ({"path": "mqtt"}, "path"),
        ({"path": "/a b"}, "path"),
        ({"path": "/a\r\nX: y"}, "path"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, object], message: str) -> None:
    """A certificate without its key, or a CA file without TLS, is an error."""
    with pytest.raises(ConfigError, match=message):
        parse_config({"mqtt": settings})


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "localhost", "LOCALHOST."])
def test_loopback_is_recognised(address: str) -> None:
    """Loopback addresses and localhost are recognised, similar names are not."""
    assert Address(address, 1).is_loopback
    assert not Address("localhost.example.org", 1).is_loopback


@pytest.mark.parametrize(
    ("mode", "is_refused"), [(0o600, False), (0o640, False), (0o604, True), (0o602, True)]
)
@pytest.mark.parametrize("key", ["password_file", "key_file"])
def test_secret_that_others_can_read_is_refused(
    tmp_path: Path, key: str, mode: int, is_refused: bool
) -> None:
    """A password or private key with a read or write bit for all users is an error with a remedy."""
    secret = tmp_path / "secret"
    secret.write_text("canary")
    secret.chmod(mode)
    more = {"username": "u"} if key == "password_file" else {"tls": True, "cert_file": "c.pem"}
    raw = {"mqtt": {key: str(secret), **more}}
    if is_refused:
        with pytest.raises(ConfigError, match=rf"mqtt\.{key} .*chmod 600"):
            parse_config(raw)
    else:
        parse_config(raw)


def test_secret_of_a_foreign_group_is_refused(tmp_path: Path) -> None:
    """A secret that a group outside the process's own may read is an error, except for root."""
    if os.geteuid() != 0:
        pytest.skip("giving a file to a foreign group needs root")
    secret = tmp_path / "secret"
    secret.write_text("canary")
    os.chown(secret, 65534, 54321)
    secret.chmod(0o640)
    program = (
        "import os, sys; from pathlib import Path; from edge.secrets import check_secret_file\n"
        "os.setgroups([int(sys.argv[2])]); os.setgid(65534)\n"
        "fd = os.open(Path(sys.argv[1]).parent, os.O_RDONLY); os.setuid(65534); os.fchdir(fd)\n"
        "check_secret_file(Path('secret'), key='k')"
    )
    for parent in [tmp_path, *tmp_path.parents[:3]]:
        parent.chmod(0o755)
    for group, code in ((54321, 0), (54322, 1)):
        done = subprocess.run(
            [sys.executable, "-c", program, secret, str(group)], capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stderr
        assert ("group 54321, which is not a group of this process" in done.stderr) == bool(code)


def test_password_comes_from_a_credential(tmp_path: Path) -> None:
    """Without password_file, systemd's credential is read and checked by the same rule."""
    mqtt = parse_config({"mqtt": {"username": "u"}}).mqtt
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert read_password(mqtt, environ=environ) is None
    credential = tmp_path / "mqtt-password"
    credential.write_text("päss wörd\n")
    credential.chmod(0o400)
    assert read_password(mqtt, environ=environ) == "päss wörd"
    credential.chmod(0o444)
    with pytest.raises(ConfigError, match="all users may read"):
        read_password(mqtt, environ=environ)


def test_password_that_is_not_text_is_refused_without_printing_it(tmp_path: Path) -> None:
    """A file that is not UTF-8 is an error, and the error does not contain its bytes."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"canary\xff")
    secret.chmod(0o600)
    mqtt = parse_config({"mqtt": {"username": "u", "password_file": str(secret)}}).mqtt
    with pytest.raises(ConfigError, match="not UTF-8") as caught:
        read_password(mqtt)
    assert "canary" not in str(caught.value)
