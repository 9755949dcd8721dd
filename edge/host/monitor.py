"""Keeps an eye on the device itself, slows the camera down while it is hot, and says what is wrong.

It also gives free memory back: others on the device may need it.

Faults: `device:` `hot` (fewer pictures are looked at) or `throttled` (the firmware slowed the processor),
`power:under_voltage`, `disk:low`, `clock:not_synchronised`.
"""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

from edge.files import ROOT
from edge.health import Health
from edge.host.conditions import Conditions, read_conditions
from edge.host.cooling import CoolingController, FrameGate
from edge.host.malloc import release_free

log = logging.getLogger(__name__)

CHECK_S = 5.0
LIMIT_S = 60.0  # a check reads files and runs at most one program
DISK_LOW_BYTES = 100 << 20
DISK_ENOUGH_BYTES = 150 << 20
CLOCK_S = 300.0  # that a device may take after it was switched on, until it has the time from the network
POWER_S = 60.0  # under-voltage comes in dips; each is told for so long


class Monitor:
    """Checks the device on a thread of its own; its `gate` decides which pictures are looked at."""

    def __init__(
        self, state: Path, health: Health, *, soft_limit_c: float, fps: float, root: Path = ROOT
    ) -> None:
        self.gate = FrameGate(fps)
        self.conditions = Conditions()
        self._state = state
        self._root = root
        self._health = health
        self._soft_limit_c = soft_limit_c
        self._cooler = CoolingController(soft_limit_c)
        self.started_s = time.monotonic()
        self._since_boot: int | None = None
        self._power_s = float("-inf")
        self._told: dict[str, str] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)

    def start(self) -> None:
        """Begin to check."""
        self._health.progress("device", limit_s=LIMIT_S)
        self._thread.start()

    def close(self) -> None:
        """End; a disk or a program that hangs is left behind."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(0.2)

    def numbers(self) -> dict[str, int | float]:
        """Name what is known, for `stats` and `/metrics`."""
        return {**self.conditions.numbers(), "frame_rate_factor": self._cooler.factor}

    def take(self, now: Conditions, now_s: float) -> None:
        """Draw the conclusions from the device's conditions at a monotonic time in seconds."""
        self.conditions = now
        before, factor = self._cooler.factor, self._cooler.update(now.temperature_c, now_s)
        self.gate.set_factor(factor)
        if factor != before:
            log.info("device: %s °C, frame rate times %g from now on", now.temperature_c, factor)
        if factor < 1:
            hot = f"{now.temperature_c} °C, limit {self._soft_limit_c:g}; give it air or shade"
            self._show("device", "hot", f"{hot}; fewer pictures are looked at until it is cooler")
        elif {"throttled", "soft_limit"} & set(now.limits):
            self._show("device", "throttled", "the firmware slows the processor down; give it air or shade")
        else:
            self._show("device", "")
        dips = "the supply voltage sags; use the supply and the cable that came with the board"
        self._show("power", "under_voltage" if self._has_bad_power(now, now_s) else "", dips)
        self._watch_disk(now)
        is_adrift = now.is_clock_synchronised is False and now_s - self.started_s >= CLOCK_S
        adrift = "nobody sets it, events may have a wrong time; `sudo timedatectl set-ntp true`"
        self._show("clock", "not_synchronised" if is_adrift else "", adrift)

    def _has_bad_power(self, now: Conditions, now_s: float) -> bool:
        """See under-voltage now, or by a bit that came since the last check, and remember it for a while."""
        since_boot = int("under_voltage" in now.limits_since_boot)
        came = self._since_boot is not None and since_boot > self._since_boot
        self._since_boot = since_boot
        if came or "under_voltage" in now.limits:
            self._power_s = now_s
        return now_s - self._power_s < POWER_S

    def _watch_disk(self, now: Conditions) -> None:
        free = now.disk_free_bytes
        is_low = bool(self._told.get("disk"))
        if free is not None:
            is_low = free < (DISK_ENOUGH_BYTES if is_low else DISK_LOW_BYTES)
        left = f"{(free or 0) / 1e6:.0f} MB left for {self._state}; make room"
        self._show("disk", "low" if is_low else "", left)

    def _show(self, component: str, reason: str, detail: str = "") -> None:
        """Tell a fault once, and that it is over."""
        if reason == self._told.get(component, ""):
            return
        self._told[component] = reason
        if reason:
            self._health.fault(component, reason, detail)
        else:
            self._health.clear(component)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.take(read_conditions(self._state, root=self._root), time.monotonic())
            except Exception:  # outermost loop: what /sys says today must not end the watch
                log.exception("device: not checked, on an error of our own")
            self._health.progress("device", limit_s=LIMIT_S)
            release_free()
            self._stop.wait(CHECK_S)
