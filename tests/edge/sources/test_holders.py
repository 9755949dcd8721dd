"""Processes that hold a device: real ones with open files, and the owner that ALSA reports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from edge.sources.holders import holders, in_use, pcm_node
from tests.helpers.brokers import wait_until

HOLD = "import sys; file = open(sys.argv[1]); sys.stdin.read()"


def test_another_process_is_named(tmp_path: Path) -> None:
    """The id and command of the process that has the node open, also through a link."""
    node, link = tmp_path / "video0", tmp_path / "by-id"
    node.touch()
    link.symlink_to(node)
    assert holders(link) == []
    assert in_use(node) == f"in use; stop the other program (`sudo fuser -v {node}` names it)"
    with subprocess.Popen([sys.executable, "-c", HOLD, node], stdin=subprocess.PIPE) as process:
        wait_until(lambda: holders(link), "the program has the node open")
        command = Path(f"/proc/{process.pid}/comm").read_text().strip()
        assert holders(link) == [(process.pid, command)]
        assert in_use(node) == f"in use by {process.pid} ({command}); stop that program"
        process.communicate()
    assert holders(link) == []


def test_this_process_is_marked(tmp_path: Path) -> None:
    """A device that this process holds is not blamed on another program."""
    node = tmp_path / "video0"
    with node.open("w"):
        assert in_use(node) == f"in use by {os.getpid()} (this process); stop that program"


def test_owner_of_a_sound_card(tmp_path: Path) -> None:
    """ALSA names the owner of a recording device, even if its open files are not visible."""
    status = tmp_path / "proc/asound/card1/pcm0c/sub0/status"
    status.parent.mkdir(parents=True)
    status.write_text("state: RUNNING\nowner_pid   : 812\ntrigger_time: 5.1\n")
    (tmp_path / "proc/812").mkdir()
    (tmp_path / "proc/812/comm").write_text("arecord\n")
    assert holders(pcm_node(1), root=tmp_path) == [(812, "arecord")]
    status.write_text("closed\n")
    assert holders(pcm_node(1), root=tmp_path) == []
    assert str(pcm_node(2, 3)) == "/dev/snd/pcmC2D3c"
