"""Monitors the device: reduces the frame rate while it is hot, and reports what is wrong with it.

Faults: `device:` `hot` (frames are skipped) or `throttled` (the firmware slowed the processor),
`power:under_voltage`, `disk:low`, `clock:not_synchronised`. Each check also frees memory for other programs.
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
CLOCK_S = 300.0  # after the start, for a device that still waits for the time from the network
POWER_S = 60.0  # under-voltage comes in short dips; each one stays a fault for this long


class Monitor:
    """Checks the device on a thread of its own; its `gate` selects the frames to process.

    `state` is the directory whose disk is monitored.
    """

    def __init__(
        self, state: Path, health: Health, *, soft_limit_c: float, fps: float, root: Path = ROOT
    ) -> None:
        self.gate = FrameGate(fps)
        self.conditions = Conditions()
        self.started_s = time.monotonic()
        self._state = state
        self._root = root
        self._health = health
        self._cooling = CoolingController(soft_limit_c)
        self._under_voltage = UnderVoltage()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._health.progress("device", limit_s=LIMIT_S)
        self._thread.start()

    def close(self) -> None:
        """Stop the thread; one that waits for a disk or a program is abandoned."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(0.2)

    def numbers(self) -> dict[str, int | float]:
        """Return the known conditions and the frame rate factor, for `stats` and `/metrics`."""
        return {**self.conditions.numbers(), "frame_rate_factor": self._cooling.factor}

    def update(self, conditions: Conditions, now_s: float) -> None:
        """Set the frame rate and the faults for the conditions at a monotonic time in seconds."""
        self.conditions = conditions
        self._update_heat(conditions, now_s)
        is_low = self._under_voltage.update(conditions, now_s)
        detail = "the supply voltage drops; use the power supply and cable made for the board"
        self._set_fault("power", "under_voltage" if is_low else "", detail)
        self._update_disk(conditions)
        is_adrift = conditions.is_clock_synchronised is False and now_s - self.started_s >= CLOCK_S
        detail = "not synchronised, so events may have a wrong time; `sudo timedatectl set-ntp true`"
        self._set_fault("clock", "not_synchronised" if is_adrift else "", detail)

    def _update_heat(self, conditions: Conditions, now_s: float) -> None:
        before, factor = self._cooling.factor, self._cooling.update(conditions.temperature_c, now_s)
        self.gate.set_factor(factor)
        if factor != before:
            log.info("device: %s °C, the frame rate is multiplied by %g", conditions.temperature_c, factor)
        if factor < 1:
            heat = f"{conditions.temperature_c} °C, limit {self._cooling.limit_c:g}"
            detail = f"{heat}; frames are skipped until it is cooler; give the device air or shade"
            self._set_fault("device", "hot", detail)
        elif {"throttled", "soft_limit"} & set(conditions.limits):
            detail = "the firmware slows the processor down; give the device air or shade"
            self._set_fault("device", "throttled", detail)
        else:
            self._set_fault("device", "")

    def _update_disk(self, conditions: Conditions) -> None:
        free, is_low = conditions.disk_free_bytes, self._has_fault("disk", "low")
        if free is not None:
            is_low = free < (DISK_ENOUGH_BYTES if is_low else DISK_LOW_BYTES)
        detail = f"{(free or 0) / 1e6:.0f} MB left for {self._state}; make room"
        self._set_fault("disk", "low" if is_low else "", detail)

    def _has_fault(self, component: str, reason: str) -> bool:
        return f"{component}:{reason}" in self._health.reasons

    def _set_fault(self, component: str, reason: str, detail: str = "") -> None:
        """Record a fault when it begins, not at each check; an empty reason ends it."""
        if not reason:
            self._health.clear(component)
        elif not self._has_fault(component, reason):
            self._health.fault(component, reason, detail)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.update(read_conditions(self._state, root=self._root), time.monotonic())
            except Exception:  # outermost loop: unexpected content of /sys must not end the checks
                log.exception("device: internal error, not checked")
            self._health.progress("device", limit_s=LIMIT_S)
            release_free()
            self._stop.wait(CHECK_S)


class UnderVoltage:
    """Detects dips of the supply voltage, also those between two checks, and keeps each for `POWER_S`."""

    def __init__(self) -> None:
        self._was_since_boot: bool | None = None
        self._last_s = float("-inf")

    def update(self, conditions: Conditions, now_s: float) -> bool:
        """Return whether the voltage is low now or was within `POWER_S`."""
        since_boot = "under_voltage" in conditions.limits_since_boot
        is_new = since_boot and self._was_since_boot is False
        self._was_since_boot = since_boot
        if is_new or "under_voltage" in conditions.limits:
            self._last_s = now_s
        return now_s - self._last_s < POWER_S
