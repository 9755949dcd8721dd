"""A PulseAudio server of its own for a test, with a null sink: what is played into it is a microphone."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.helpers.brokers import wait_until

RATE_HZ = 48_000


class SoundServer:
    """The server, the sink `room` and its monitor, which ALSA's device `pulse` and `default` record."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.socket = directory / "native"
        self.environment = {
            "HOME": str(directory),
            "XDG_RUNTIME_DIR": str(directory),
            "PULSE_SERVER": f"unix:{self.socket}",
            "PULSE_SOURCE": "room.monitor",
            "PULSE_LOG": "0",
            "ALSA_CONFIG_PATH": str(directory / "asound.conf"),
        }
        # PortAudio aborts the process where ALSA has no `default`.
        (directory / "asound.conf").write_text("pcm.pulse { type pulse }\npcm.default { type pulse }\n")
        self._players: list[subprocess.Popen[bytes]] = []
        protocol = f"module-native-protocol-unix auth-anonymous=1 socket={self.socket}"
        options = "-n --daemonize=no --use-pid-file=no --exit-idle-time=-1 --disable-shm=yes"
        self._process = self._start("pulseaudio", *options.split(), f"--load={protocol}")
        wait_until(self.socket.exists, "PulseAudio listens")
        self.connect()

    def connect(self) -> None:
        """Plug the sink in."""
        self._module = self._control(
            "load-module", "module-null-sink", "sink_name=room", f"rate={RATE_HZ}", "channels=2"
        ).strip()

    def unplug(self) -> None:
        """Take the sink away, and with it the microphone."""
        self._control("unload-module", self._module)

    def play(self, frames: NDArray[np.float32]) -> None:
        """Play (n, 2) float32 once, in the background."""
        sound = self._directory / f"sound-{len(self._players)}.raw"
        sound.write_bytes(frames.astype("<f4").tobytes())
        options = f"--device=room --raw --format=float32le --rate={RATE_HZ} --channels=2 --latency-msec=50"
        self._players.append(self._start("pacat", *options.split(), str(sound)))

    def close(self) -> None:
        for process in [*self._players, self._process]:
            process.kill()
            process.wait(5)

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, env={**os.environ, **self.environment}, stderr=subprocess.DEVNULL)

    def _control(self, *command: str) -> str:
        done = subprocess.run(
            ["pactl", *command],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        return done.stdout


@pytest.fixture
def sound_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SoundServer]:
    """Run a sound server and let this process use it."""
    for program in ("pulseaudio", "pactl", "pacat"):
        if shutil.which(program) is None:
            pytest.skip(
                f"{program} is missing: sudo apt install pulseaudio pulseaudio-utils libasound2-plugins"
            )
    server = SoundServer(tmp_path)
    for key, value in server.environment.items():
        monkeypatch.setenv(key, value)
    yield server
    server.close()
