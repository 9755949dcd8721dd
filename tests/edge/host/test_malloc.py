"""Freed memory is returned to the system, however often devices are opened."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from pathlib import Path

from edge.health import Health
from edge.host.malloc import limit_arenas, release_free, rss_bytes
from edge.host.monitor import Monitor
from edge.sources.media_files import decode_video, open_media, to_rgb, video_stream
from edge.sources.replay import clip_path
from tests.helpers.brokers import wait_until

ROUNDS, WARM_ROUNDS, THREADS = 14, 4, 3
MAX_GROWTH_MB = 3.0  # without the two functions it is 8 to 11


def test_reopening_a_clip_on_new_threads_needs_no_more_memory() -> None:
    """Forty decoders on as many threads, each leaving a block behind, do not grow malloc's arenas."""
    grown = subprocess.run(
        [sys.executable, "-m", __name__], capture_output=True, text=True, check=True, timeout=120
    )
    assert float(grown.stdout) < MAX_GROWTH_MB


def test_the_monitor_returns_free_memory(tmp_path: Path) -> None:
    """Free memory below a block in use, which malloc keeps by itself, is returned."""
    blocks = [bytes(2000) for _ in range(20_000)]
    full_mb = rss_bytes() / 1e6
    del blocks[::2], blocks[:-1]
    watch = Monitor(tmp_path, Health(), soft_limit_c=78.0, fps=10.0, root=tmp_path)
    assert rss_bytes() / 1e6 > full_mb - 10
    watch.start()
    try:
        wait_until(lambda: rss_bytes() / 1e6 < full_mb - 30, f"30 MB less than {full_mb:.0f} MB")
    finally:
        watch.close()
    assert blocks[0] == bytes(2000)


def _growth_mb() -> float:
    """Return how much the process grew from round `WARM_ROUNDS` to round `ROUNDS`."""
    chance, kept = random.Random(1), [b""] * 500

    def decode() -> None:
        with open_media(clip_path()) as container:
            stream = video_stream(container)
            assert stream is not None
            for number, (_, picture) in enumerate(
                decode_video(container, stream, from_s=chance.uniform(0, 10))
            ):
                to_rgb(picture)
                kept[chance.randrange(len(kept))] = bytes(chance.randint(600, 4000))
                if number == 8:
                    break

    sizes = []
    for _ in range(ROUNDS):
        threads = [threading.Thread(target=decode) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        release_free()
        sizes.append(rss_bytes() / 1e6)
    return sizes[-1] - sizes[WARM_ROUNDS - 1]


if __name__ == "__main__":
    limit_arenas()
    print(_growth_mb())
