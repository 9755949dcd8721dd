"""Fuzz target: configuration files, given to `config show` and `config check`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import cast

from edge.__main__ import main
from edge.settings import Config, Section
from tests.fuzz.damage import damage
from tests.fuzz.target import CAMERA, Target, Verdict
from tests.helpers.commands import run_edge, run_here

KEYS = [
    (name, key)
    for name, field in Config.model_fields.items()
    if name != "version"
    for key in cast(type[Section], field.annotation).model_fields
]
VALUES = [
    *("0", "-1", "1", "65536", "9" * 30, "9" * 5000, "0x" + "f" * 5000, "inf", "-inf", "nan", "1e308"),
    *("1e-320", "true", "[]", "[[1]]", "{a = {b = 1}}", "[" * 900, "[" * 400 + "]" * 400, "{", "1979-05-27"),
    *('""', '"."', '"/"', '"~nouser/a"', '"a\\u0000b"', '"' + "x" * 70_000 + '"', '"\\u001b[2J"', "'''"),
    *('"auto"', '"none"', '"file:"', '"gstreamer:\'"', '"[::1]:1"', '"a..b"', '"delegate:/x?="', '"RTSP://"'),
    *('"home"', '"cpu"', '"10.0.0.1:1883"', '["a", "b:1"]', '"..."', '"\\U0010ffff"', '"/dev/zero"'),
]
IN_PROCESS_OF_ITS_OWN = 0.01  # of all inputs


def generate(random: Random) -> bytes:
    """Return some keys with odd values, one of them a camera with a password, sometimes damaged."""
    lines = [f'camera.source = "{CAMERA}"']
    for name, key in random.sample(KEYS, random.randrange(4)):
        if (name, key) != ("camera", "source"):
            lines.append(f"{name}.{key} = {random.choice(VALUES)}")
    random.shuffle(lines)
    content = "\n".join(lines).encode()
    return damage(content, random) if random.random() < 0.6 else content


class Commands:
    """`emotion-edge config` in this process, and some in one of their own."""

    def __init__(self, directory: Path) -> None:
        self.pid = os.getpid()
        self._path = directory / "config.toml"
        self._random = Random(0)

    def run(self, data: bytes) -> Verdict:
        self._path.write_bytes(data)
        action = self._random.choice(("show", "check"))
        words = ("config", action, "--config", self._path)
        is_here = self._random.random() >= IN_PROCESS_OF_ITS_OWN
        done = run_here(main, *words) if is_here else run_edge(*words, timeout_s=20)
        assert done.returncode in (0, 3), f"exit code {done.returncode}: {done.stderr}"
        if done.returncode:
            assert len(done.stderr.splitlines()) == 1, done.stderr
            assert len(done.stderr) < 1000, f"{len(done.stderr)} characters"
        return Verdict(done.returncode == 0, done.stdout + done.stderr)


@contextmanager
def opened(directory: Path) -> Iterator[Commands]:
    yield Commands(directory)


TARGET = Target("configuration", generate, opened)
