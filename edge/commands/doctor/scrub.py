"""Removes private data from texts: secrets, names of people and machines, addresses."""

from __future__ import annotations

import getpass
import os
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from edge.config import read_password
from edge.errors import EdgeError
from edge.masking import credentials_in
from edge.secrets import read_secret
from edge.settings import Config

SHORTEST = 3  # characters of a secret or name to replace; shorter ones occur in ordinary words
# Names that identify no person or machine.
COMMON = {"root", "localhost", "emotion-edge", "emotion", "room", "homeassistant"}
PATTERNS = (
    # Text between braces may be a payload; our log lines are clear without it.
    (re.compile(r"\{.*\}"), "{...}"),
    (re.compile(r"\b([a-z][a-z0-9+.-]*)://[^\s\"']+", re.IGNORECASE), r"\1://***"),
    (re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+"), "***@***"),
    (re.compile(r"/(home|Users)/[^/\s\"']+"), r"/\1/***"),
    (re.compile(r"(?<![\w.])(?!127\.|0\.0\.0\.0)\d{1,3}(?:\.\d{1,3}){3}(?![\w.]*\d)"), "<address>"),
    # MAC addresses and IPv6; a time of day has two colons only.
    (re.compile(r"(?<![\w:])(?:[0-9a-f]{1,4}:){3,7}[0-9a-f]{1,4}(?![\w:])", re.IGNORECASE), "<address>"),
    (re.compile(r"(?<![\w:])[0-9a-f:]*::[0-9a-f:]+(?![\w:])", re.IGNORECASE), "<address>"),
    # The last part of a camera's name in /dev/v4l/by-id is its serial number.
    (re.compile(r"(/by-id/[^\s\"']+)_[^_\s\"']+?(-(?:video-)?index\d+)"), r"\1_***\2"),
)


class Scrubber:
    """Replaces each secret and name by the same word everywhere, so that related lines stay related."""

    def __init__(self, secrets: list[str], names: Mapping[str, str]) -> None:
        self._secrets = sorted({s for s in secrets if len(s) >= SHORTEST}, key=len, reverse=True)
        known = {name: word for name, word in names.items() if len(name) >= SHORTEST}
        self._names = {
            re.compile(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", re.IGNORECASE): word
            for name, word in sorted(known.items(), key=lambda item: -len(item[0]))
            if name.lower() not in COMMON
        }

    def text(self, text: str) -> str:
        """Return the text with secrets, patterns and names replaced, in this order."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        for pattern, word in PATTERNS:
            text = pattern.sub(word, text)
        for name, word in self._names.items():
            text = name.sub(word, text)
        return text

    def all(self, value: Any) -> Any:
        """Replace in every string of a JSON value; keys are fixed words and stay."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {key: self.all(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.all(item) for item in value]
        return value


def scrubber_of(config: Config | None, *, raw: str = "") -> Scrubber:
    """Return a scrubber for the names of this machine, its user and the configuration, and for its secrets.

    If the configuration is not valid, `raw` is its text, and every string in it is treated as a secret.
    """
    names = {socket.gethostname(): "this-machine", socket.gethostname().partition(".")[0]: "this-machine"}
    with suppress(OSError, KeyError):  # a user id without a name
        names[getpass.getuser()] = "this-user"
    if config is None:
        return Scrubber([text for pair in re.findall(r"\"([^\"]*)\"|'([^']*)'", raw) for text in pair], names)
    for number, address in enumerate(config.mqtt.addresses, 1):
        if not address.is_loopback:
            names[address.host] = f"broker-{number}"
    names[config.device.id] = "this-device"
    names[config.mqtt.prefix] = "this-prefix"
    if config.mqtt.username is not None:
        names[config.mqtt.username] = "this-account"
    return Scrubber(_secrets(config), names)


def _secrets(config: Config) -> list[str]:
    """Read all secrets, in case one got into a log; those that this user cannot read cannot leak either."""
    secrets = []
    with suppress(EdgeError):
        secrets.append(read_password(config.mqtt) or "")
    for key, path in (("dashboard.token_file", config.dashboard.token_file), ("key", config.mqtt.key_file)):
        if path is not None:
            with suppress(EdgeError):
                secrets += read_secret(path, key=key).splitlines()
    if directory := os.environ.get("CREDENTIALS_DIRECTORY"):
        with suppress(OSError):
            for path in Path(directory).iterdir():
                with suppress(EdgeError):
                    secrets.append(read_secret(path, key="credential"))
    for source in (config.camera.source, config.microphone.source):
        secrets += credentials_in(source)
    return secrets
