"""Resources of a daemon at one moment: memory by kind, open files, threads, waiting events."""

from __future__ import annotations

import csv
import dataclasses
import http.client
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True)
class Sample:
    """The daemon at one moment; `t_s` since the start, sizes in megabytes.

    RSS is the sum of `heap_mb` (the main arena of malloc), `anonymous_mb` (its other arenas and large blocks,
    stacks, Python's own arenas) and `mapped_mb` (program, libraries and files, as far as they were touched).
    """

    t_s: float
    rss_mb: float
    heap_mb: float
    anonymous_mb: float
    mapped_mb: float
    files: int
    threads: int
    waiting: int


def take_sample(watched: psutil.Process, port: int, t_s: float) -> Sample:
    """Measure a daemon that serves `/metrics` on `port`, `t_s` after the start."""
    kinds = {"heap": 0, "anonymous": 0, "mapped": 0}
    for mapping in watched.memory_maps():  # grouped by name: `[heap]`, `[anon]`, `[stack]`, or a path
        kind = {"[heap]": "heap", "[anon]": "anonymous", "[stack]": "anonymous"}.get(mapping.path, "mapped")
        kinds[kind] += mapping.rss
    return Sample(
        t_s,
        rss_mb=sum(kinds.values()) / 1e6,
        heap_mb=kinds["heap"] / 1e6,
        anonymous_mb=kinds["anonymous"] / 1e6,
        mapped_mb=kinds["mapped"] / 1e6,
        files=watched.num_fds(),
        threads=watched.num_threads(),
        waiting=waiting(port),
    )


def save_samples(path: Path, samples: list[Sample]) -> None:
    """Write CSV, a line a sample, with the names of the fields above."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(field.name for field in dataclasses.fields(Sample))
        writer.writerows(dataclasses.astuple(sample) for sample in samples)


def waiting(port: int) -> int:
    """Return the number of waiting events from `/metrics`; -1 while it does not answer."""
    try:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
    except OSError:
        return -1
    found = [line for line in text.splitlines() if line.startswith("emotion_edge_outbox_waiting ")]
    return int(float(found[0].split()[1])) if found else -1
