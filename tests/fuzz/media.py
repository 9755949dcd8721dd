"""Fuzz target: damaged images, sounds and videos, given to `analyze`."""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from random import Random

import numpy as np

from edge.commands.analyze import Analyzer
from edge.commands.analyze_report import print_results
from edge.config import parse_config
from tests.fuzz.damage import damage
from tests.fuzz.target import CAMERA, Target, Verdict
from tests.helpers import media

HEAD_BYTES = 400  # half of the changes are here: headers decide what a decoder does


@cache
def _samples() -> list[tuple[str, bytes]]:
    """Return small files of all kinds, each with its suffix."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        image, sound = media.picture(), media.tone(0.5)
        for suffix in (".png", ".jpg", ".bmp", ".webp", ".tiff"):
            media.write_image(directory / f"image{suffix}", image)
        media.with_orientation(media.write_image(directory / "turned.jpg", image), 6)
        media.write_cmyk_jpeg(directory / "cmyk.jpg", (10, 80, 200, 0))
        media.write_gif(directory / "moving.gif", [image, np.flip(image, 1).copy()])
        media.write_sound(directory / "sound.wav", sound)
        media.write_sound(directory / "sound.flac", sound, codec="flac")
        media.write_sound(directory / "sound.mp3", sound, codec="libmp3lame")
        for suffix in (".mp4", ".mkv", ".avi", ".mpg"):
            media.write_clip(directory / f"clip{suffix}", seconds=0.4, size=(64, 48))
        return [(path.suffix, path.read_bytes()) for path in sorted(directory.iterdir())]


def generate(random: Random) -> bytes:
    """Return the suffix, a line feed, and a damaged file."""
    suffix, content = random.choice(_samples())
    if random.random() < 0.5:
        content = damage(content[:HEAD_BYTES], random) + content[HEAD_BYTES:]
    else:
        content = damage(content, random)
    if random.random() < 0.05:
        suffix = random.choice(_samples())[0]
    return suffix.encode() + b"\n" + content


class Files:
    """`emotion-edge analyze --json` with the models opened once."""

    def __init__(self, directory: Path) -> None:
        self.pid = os.getpid()
        self._directory = directory
        config = parse_config({"camera": {"source": CAMERA}, "inference": {"backend": "cpu"}})
        self._analyzer = Analyzer(config)

    def run(self, data: bytes) -> Verdict:
        suffix, _, content = data.partition(b"\n")
        path = self._directory / f"file{suffix.decode()}"
        path.write_bytes(content)
        out, errors = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(errors):
            code = print_results(self._analyzer, [path], every_s=None, as_json=True)
        lines = [json.loads(line, parse_constant=_refuse) for line in out.getvalue().splitlines()]
        assert code in (0, 1), f"exit code {code}"
        assert lines, "no line"
        assert ("error" in lines[-1]) == (code == 1), lines
        return Verdict(code == 0, out.getvalue() + errors.getvalue())


def _refuse(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


@contextmanager
def opened(directory: Path) -> Iterator[Files]:
    yield Files(directory)


TARGET = Target("media", generate, opened)
