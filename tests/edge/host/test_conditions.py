"""Conditions of the device, read from machines built below a directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.host.conditions import Conditions, disk_free_bytes, kernel_clock, read_conditions

GIB = 1 << 30


def put(root: Path, path: str, text: str) -> Path:
    """Write one file of a machine."""
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def read(root: Path, kernel: bool | None = None) -> Conditions:
    """Read a machine whose kernel returns `kernel` for its clock."""
    return read_conditions(root, root=root, ask_kernel=lambda: kernel)


def zone(root: Path, number: int, name: str, temp: str) -> None:
    """Add a thermal zone."""
    put(root, f"sys/class/thermal/thermal_zone{number}/type", name)
    put(root, f"sys/class/thermal/thermal_zone{number}/temp", temp)


def test_machine_without_sensors(tmp_path: Path) -> None:
    """Only the disk is known, and only its number is reported."""
    now = read(tmp_path)
    assert (now.temperature_c, now.throttled, now.is_clock_synchronised) == (None, None, None)
    assert set(now.numbers()) == {"disk_free_bytes"}


def test_raspberry_pi(tmp_path: Path) -> None:
    """One zone, and the firmware's bits now and since the boot."""
    zone(tmp_path, 0, "cpu-thermal", "61322\n")
    put(tmp_path, "sys/devices/platform/soc/soc:firmware/get_throttled", "50005\n")
    now = read(tmp_path)
    assert now.temperature_c == 61.3
    assert now.limits == ("under_voltage", "throttled")
    assert now.limits_since_boot == ("under_voltage", "throttled")


def test_raspberry_pi_5_has_addresses_in_its_names(tmp_path: Path) -> None:
    """The file has another path; bits since the boot are not bits of now."""
    soc = "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled"
    put(tmp_path, soc, "80000")
    now = read(tmp_path)
    assert (now.limits, now.limits_since_boot) == ((), ("soft_limit",))


@pytest.mark.parametrize(
    ("script", "throttled"),
    [
        ("echo throttled=0x50000", 0x50000),
        ("echo throttled=0x0", 0),
        ("echo 'VCHI initialization failed'; exit 255", None),
        ("exit 1", None),
        ("exec sleep 60", None),
    ],
)
def test_vcgencmd_is_used_without_the_kernel_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, throttled: int | None
) -> None:
    """Its output is used; an error or a hang gives no value."""
    monkeypatch.setattr("edge.host.conditions.VCGENCMD_S", 0.5)
    put(tmp_path, "usr/bin/vcgencmd", f"#!/bin/sh\n{script}\n").chmod(0o755)
    assert read(tmp_path).throttled == throttled


def test_voltage_alarm_of_the_kernel(tmp_path: Path) -> None:
    """Without access to the firmware, `rpi_volt` still reports under-voltage."""
    put(tmp_path, "sys/class/hwmon/hwmon1/name", "rpi_volt\n")
    alarm = put(tmp_path, "sys/class/hwmon/hwmon1/in0_lcrit_alarm", "0\n")
    assert read(tmp_path).limits == ()
    alarm.write_text("1\n")
    assert read(tmp_path).limits == ("under_voltage",)


def test_jetson(tmp_path: Path) -> None:
    """The hottest processor counts, not the PMIC's constant 100 degrees or a part that is switched off."""
    zone(tmp_path, 0, "AO-therm", "70500")
    zone(tmp_path, 1, "CPU-therm", "54000")
    zone(tmp_path, 2, "GPU-therm", "55500")
    zone(tmp_path, 3, "PMIC-Die", "100000")
    (tmp_path / "sys/class/thermal/thermal_zone4/temp").mkdir(parents=True)  # reading it is an error
    assert read(tmp_path).temperature_c == 55.5


@pytest.mark.parametrize(("chip", "celsius"), [("k10temp", 48.0), ("acpitz", 48.0)])
def test_computer_without_zones(tmp_path: Path, chip: str, celsius: float) -> None:
    """hwmon is used instead; without a named processor, any sensor counts."""
    put(tmp_path, "sys/class/hwmon/hwmon0/name", chip)
    put(tmp_path, "sys/class/hwmon/hwmon0/temp1_input", "48000")
    assert read(tmp_path).temperature_c == celsius


@pytest.mark.parametrize("temp", ["", "n/a", "-274000", "255000"])
def test_broken_sensor_is_no_temperature(tmp_path: Path, temp: str) -> None:
    """Values outside the range of a thermometer are ignored."""
    zone(tmp_path, 0, "cpu-thermal", temp)
    assert read(tmp_path).temperature_c is None


def test_disk_of_a_missing_directory(tmp_path: Path) -> None:
    """The nearest existing parent is used."""
    free = disk_free_bytes(tmp_path / "state" / "emotion-edge")
    assert free is not None
    assert free == pytest.approx(disk_free_bytes(tmp_path), abs=GIB)


@pytest.mark.parametrize("kernel", [True, False, None])
def test_clock_comes_from_the_kernel(tmp_path: Path, kernel: bool | None) -> None:
    """Without timesyncd the value of the kernel is used."""
    assert read(tmp_path, kernel).is_clock_synchronised is kernel


@pytest.mark.parametrize(("kernel", "answer"), [(True, True), (False, False), (None, False)])
def test_clock_of_timesyncd(tmp_path: Path, kernel: bool | None, answer: bool) -> None:
    """Its marker means synchronised; without it the kernel decides, and an unknown value counts as no."""
    mark = put(tmp_path, "run/systemd/timesync/clock", "").with_name("synchronized")
    assert read(tmp_path, kernel).is_clock_synchronised is answer
    mark.touch()
    assert read(tmp_path, kernel).is_clock_synchronised is True


def test_this_kernel_answers() -> None:
    """The system call works on this machine, whatever its value."""
    assert kernel_clock() in (True, False, None)


def test_numbers_are_numbers(tmp_path: Path) -> None:
    """True and False become 1 and 0 for JSON and Prometheus."""
    numbers = read(tmp_path, True).numbers()
    assert type(numbers["clock_synchronised"]) is int
