"""Reads the conditions of the device: temperature, power, disk, clock.

All files are read below a root directory, so that a test can build a machine in another one.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edge.files import ROOT

# https://www.raspberrypi.com/documentation/computers/os.html#get_throttled: bits of now; the same
# bits shifted up by 16 are set if it happened since the boot.
THROTTLED = {"under_voltage": 0x1, "frequency_capped": 0x2, "throttled": 0x4, "soft_limit": 0x8}
SINCE_BOOT = 16
VCGENCMD_S = 2.0
_PROCESSOR = ("cpu", "gpu", "soc", "core", "pkg", "k10temp")
_TIME_ERROR = 5  # adjtimex(2) returns it while the clock is not synchronised


@dataclass(frozen=True, slots=True)
class Conditions:
    """The device at one moment; None where a value is not known.

    `temperature_c` is that of the hottest processor; `throttled` has the bits of `THROTTLED`, now and since
    the boot; `disk_free_bytes` is the free space for the state directory.
    """

    temperature_c: float | None = None
    throttled: int | None = None
    disk_free_bytes: int | None = None
    is_clock_synchronised: bool | None = None

    @property
    def limits(self) -> tuple[str, ...]:
        """Names of the `THROTTLED` bits that are set now."""
        return names_of(self.throttled or 0)

    @property
    def limits_since_boot(self) -> tuple[str, ...]:
        """Names of the `THROTTLED` bits that were set at any time since the boot."""
        return names_of((self.throttled or 0) >> SINCE_BOOT)

    def numbers(self) -> dict[str, int | float]:
        """Return the known values by name, for `stats` and `/metrics`."""
        numbers = {
            "temperature_c": self.temperature_c,
            "throttled": self.throttled,
            "disk_free_bytes": self.disk_free_bytes,
            "clock_synchronised": self.is_clock_synchronised,
        }
        return {name: value + 0 for name, value in numbers.items() if value is not None}


def names_of(bits: int) -> tuple[str, ...]:
    """Return the names of `THROTTLED` whose bits are set."""
    return tuple(name for name, bit in THROTTLED.items() if bits & bit)


def kernel_clock() -> bool | None:
    """Return whether the kernel's clock is synchronised; None where this process may not ask."""
    libc = ctypes.CDLL(None)
    timex = ctypes.create_string_buffer(512)  # struct timex, all zeros: read only
    state: int = libc.adjtimex(timex)
    return None if state < 0 else state != _TIME_ERROR


def read_conditions(
    state: Path, *, root: Path = ROOT, ask_kernel: Callable[[], bool | None] = kernel_clock
) -> Conditions:
    """Read all conditions; `state` is the directory whose disk counts, even before it exists."""
    return Conditions(
        temperature_c=_temperature_c(root),
        throttled=_throttled(root),
        disk_free_bytes=disk_free_bytes(state),
        is_clock_synchronised=_is_synchronised(root, ask_kernel),
    )


def disk_free_bytes(directory: Path) -> int | None:
    """Return the space that this user may fill on the disk of `directory` or its nearest existing parent."""
    for existing in (directory, *directory.parents):
        with suppress(OSError):
            disk = os.statvfs(existing)
            return disk.f_bavail * disk.f_frsize
    return None


def _temperature_c(root: Path) -> float | None:
    """Return the hottest processor of the thermal zones, else of hwmon, else the hottest sensor."""
    zones = list(_zones(root)) or list(_hwmon(root))
    processors = [c for name, c in zones if any(word in name.lower() for word in _PROCESSOR)]
    return max(processors or [c for _, c in zones], default=None)


def _zones(root: Path) -> Iterable[tuple[str, float]]:
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        name = _text(zone / "type")
        celsius = _celsius(zone / "temp")  # a sleeping part of a Jetson gives an error
        if celsius is not None and name != "PMIC-Die":  # a Jetson always reports it as 100 degrees
            yield name, celsius


def _hwmon(root: Path) -> Iterable[tuple[str, float]]:
    for chip in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        for file in sorted(chip.glob("temp*_input")):
            if (celsius := _celsius(file)) is not None:
                yield _text(chip / "name"), celsius


def _celsius(file: Path) -> float | None:
    try:
        celsius = int(_text(file)) / 1000
    except ValueError:
        return None
    return round(celsius, 1) if -40 <= celsius <= 150 else None  # outside: a broken sensor


def _throttled(root: Path) -> int | None:
    """Return the firmware's bits of a Raspberry Pi, including the kernel's voltage alarm."""
    # soc/soc:firmware; on a Pi 5 both names contain addresses.
    files = (root / "sys/devices/platform").glob("soc*/*firmware/get_throttled")
    text = next(filter(None, map(_text, files)), "") or _run_vcgencmd(root)
    bits: int | None = None
    with suppress(ValueError):
        bits = int(text.removeprefix("throttled="), 16)
    for chip in (root / "sys/class/hwmon").glob("hwmon*"):
        if _text(chip / "name") == "rpi_volt":
            bits = (bits or 0) | (_text(chip / "in0_lcrit_alarm") == "1")
    return bits


def _run_vcgencmd(root: Path) -> str:
    command = root / "usr/bin/vcgencmd"
    if not command.exists():
        return ""
    try:
        done = subprocess.run(
            [command, "get_throttled"],
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=VCGENCMD_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def _is_synchronised(root: Path, ask_kernel: Callable[[], bool | None]) -> bool | None:
    timesyncd = root / "run/systemd/timesync"
    if (timesyncd / "synchronized").exists():
        return True
    # Another program may set the clock (chrony, ntpd, a hypervisor), and a sandbox may forbid the call.
    is_synchronised = ask_kernel()
    return False if is_synchronised is None and timesyncd.exists() else is_synchronised


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
