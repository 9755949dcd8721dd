"""`make test-install`: systemd/install.sh in a clean Debian, then the unit under that Debian's own systemd.

Needs root, debootstrap and systemd-nspawn. A foreign architecture runs under qemu-user, where
systemd does not boot: there the program is installed from that architecture's wheels, and used by hand.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).parents[2]
WORK = SOURCE / "runs" / "install"
ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}
BINFMT = Path("/proc/sys/fs/binfmt_misc")
# What an image of Debian or of Pi OS has anyway.
IMAGE = "systemd-sysv,udev,ca-certificates"
LEFT = ("opt/emotion-edge", "usr/local/bin/emotion-edge", "etc/systemd/system/emotion-edge.service",
        "etc/udev/rules.d/99-emotion-edge-coral.rules")  # fmt: skip
WANTED = "etc/systemd/system/multi-user.target.wants/emotion-edge.service"
CHECK_UNIT = """[Unit]
After=emotion-edge.service mosquitto.service
[Service]
Type=oneshot
ExecStart=/bin/sh -c '/source/tests/install/booted.sh >/booted.log 2>&1'
ExecStopPost=/bin/systemctl poweroff --no-block
"""


@dataclass(frozen=True, slots=True)
class Debian:
    """A system below `root` for one architecture; the repository is there as /source."""

    root: Path
    arch: str

    def inside(self, *command: str, seconds: float = 3600, status: int | None = 0) -> str:
        """Run a command there, not booted; return what it printed. `status` None allows any."""
        options = ["--pipe", "--as-pid2", *network_settings()]  # as process 1 it would not die of a signal
        if self.arch != native():
            # XNNPACK would read of this machine's cores there, and crash; the processor is a Pi 4's.
            options += ["--tmpfs=/sys/devices/system", "--setenv=QEMU_CPU=cortex-a72"]
        return run([*self._nspawn(), *options, *command], seconds=seconds, status=status)

    def boot(self, *, seconds: float) -> None:
        """Boot until it powers itself off, with no network but its own loopback."""
        run([*self._nspawn(), "--private-network", "--boot"], seconds=seconds, status=None)

    def has(self, path: str) -> bool:
        """Return whether the path exists, even as a dangling link."""
        return os.path.lexists(self.root / path)

    @property
    def clip(self) -> str:
        """Where the shipped clip lies."""
        (found,) = self.root.glob("opt/emotion-edge/lib/*/site-packages/edge/sources/clips/demo.mp4")
        return f"/{found.relative_to(self.root)}"

    def _nspawn(self) -> list[str]:
        command = ["systemd-nspawn", "--quiet", "--register=no", f"--directory={self.root}"]
        command.append(f"--bind-ro={SOURCE}:/source")
        # Without systemd on the host no scope can be requested.
        return command if Path("/run/systemd/system").exists() else [*command, "--keep-unit"]


def main() -> int:
    """Run the whole test; print a line for each step, and return 0 when all of them held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", choices=ARCHITECTURES, default=native())
    parser.add_argument("--suite", default="bookworm", help="Debian's release")
    options = parser.parse_args()
    for tool in ("debootstrap", "systemd-nspawn"):
        if shutil.which(tool) is None or os.geteuid() != 0:
            sys.exit(f"test-install: needs root and {tool}; sudo apt install debootstrap systemd-container")
    with foreign(options.arch):
        image = make_image(options.arch, options.suite)
        root = WORK / f"root-{os.getpid()}"
        debian = Debian(root, options.arch)
        try:
            subprocess.run(["cp", "-a", "--reflink=auto", image, root], check=True)
            install(debian)
            use(debian)
            follow_numpy(debian)
            if options.arch == native():
                boot(debian)
            else:
                uninstall(debian)
        finally:
            shutil.rmtree(root, ignore_errors=True)
    report("all well")
    return 0


def native() -> str:
    """Return Debian's name of this machine's architecture."""
    return next(name for name, machine in ARCHITECTURES.items() if machine == platform.machine())


@contextmanager
def foreign(arch: str) -> Iterator[None]:
    """Let the kernel run another architecture's programs by qemu while the block lasts."""
    name = f"qemu-{ARCHITECTURES[arch]}"
    if arch == native() or (BINFMT / name).exists():
        yield
        return
    line = Path(f"/usr/lib/binfmt.d/{name}.conf")
    if not line.exists():
        sys.exit(f"test-install: no qemu for {arch}; sudo apt install qemu-user-static")
    if not (BINFMT / "register").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "none", BINFMT], check=True)
    (BINFMT / "register").write_text(line.read_text())
    try:
        yield
    finally:
        (BINFMT / name).write_text("-1")


def make_image(arch: str, suite: str) -> Path:
    """Return a Debian that nothing was installed in yet; it is made once and kept."""
    image = WORK / f"{suite}-{arch}"
    if not image.exists():
        partial = image.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.parent.mkdir(parents=True, exist_ok=True)
        options = ("--variant=minbase", f"--arch={arch}", f"--include={IMAGE}")
        run(["debootstrap", *options, suite, str(partial)])
        partial.rename(image)
        report(f"debootstrap: {image.name}")
    return image


def network_settings() -> list[str]:
    """Return options that bring this machine's package index, proxy and certificates along."""
    names = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "http_proxy", "https_proxy", "no_proxy")
    settings = [f"--setenv={name}={os.environ[name]}" for name in names if name in os.environ]
    if certificates := os.environ.get("PIP_CERT"):
        settings += [f"--bind-ro={certificates}:/run/pip.pem", "--setenv=PIP_CERT=/run/pip.pem"]
    return settings


def install(debian: Debian) -> None:
    """Install twice; the second time keeps a config that was edited."""
    output = debian.inside("/source/systemd/install.sh")
    assert "systemd does not run here" in output, output
    report("install.sh: from nothing")
    config = debian.root / "etc/emotion-edge/config.toml"
    token = f"file:{debian.clip}?loop"
    config.write_text(config.read_text().replace('source = "auto"', f'source = "{token}"'))
    edited = config.read_text()
    debian.inside("/source/systemd/install.sh")
    assert config.read_text() == edited
    assert debian.has(WANTED)
    report("install.sh: again, with a config that was edited")


def follow_numpy(debian: Debian) -> None:
    """With Debian's NumPy there, as picamera2 brings it, the program gets one that goes with it."""
    debian.inside("apt-get", "install", "-y", "-qq", "--no-install-recommends", "python3-numpy")
    debian.inside("/source/systemd/install.sh")
    show = "import numpy; print(numpy.__version__)"
    theirs = debian.inside("python3", "-c", show).strip()
    ours = debian.inside("/opt/emotion-edge/bin/python", "-c", show).strip()
    assert theirs.split(".")[0] == ours.split(".")[0], (theirs, ours)
    if debian.arch == native():  # qemu needs minutes for it
        analyze(debian)
    report(f"NumPy {ours} beside Debian's {theirs}")


def use(debian: Debian) -> None:
    """Use the installed commands as a person would."""
    analyze(debian)
    output = debian.inside("emotion-edge", "devices")
    assert f"{ARCHITECTURES[debian.arch]}, " in output, output
    output = debian.inside("emotion-edge", "doctor", status=None)  # no device and no broker here
    assert output, "the doctor printed nothing"
    report("doctor: " + " ".join(output.split())[-200:])
    # Under qemu a picture takes so long that no emotion lasts.
    seconds = "60" if debian.arch == native() else "240"
    output = debian.inside("emotion-edge", "demo", "--seconds", seconds, seconds=600)
    assert ("emotion.changed" if debian.arch == native() else "presence.gained") in output, output
    report("demo: " + output.strip().splitlines()[-1])


def analyze(debian: Debian) -> None:
    """Check that both models have a result for the shipped clip."""
    lines = debian.inside("emotion-edge", "analyze", "--json", debian.clip).splitlines()
    analysis = json.loads(lines[-1])
    assert analysis["faces"], analysis
    assert analysis["voice"], analysis
    report(f"analyze: {analysis['fused']['emotion']} {analysis['fused']['confidence']:.2f}")


def boot(debian: Debian) -> None:
    """Boot the installed system beside a broker; booted.sh judges it."""
    packages = ("mosquitto", "mosquitto-clients")
    debian.inside("apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages)
    units = debian.root / "etc/systemd/system"
    (units / "check.service").write_text(CHECK_UNIT)
    (units / "multi-user.target.wants/check.service").symlink_to("../check.service")
    debian.boot(seconds=300)
    log = (debian.root / "booted.log").read_text()
    print(log, end="", flush=True)
    assert log.endswith("all well\n")
    check_removed(debian)


def uninstall(debian: Debian) -> None:
    """Take all away where no systemd runs."""
    debian.inside("/source/systemd/install.sh", "--uninstall")
    check_removed(debian)
    report("install.sh --uninstall")


def check_removed(debian: Debian) -> None:
    """Nothing of the program is left; what its owner wrote is."""
    assert not [path for path in LEFT if debian.has(path)]
    assert not debian.has(WANTED)
    assert debian.has("etc/emotion-edge/config.toml")


def run(command: Sequence[str | Path], *, seconds: float = 3600, status: int | None = 0) -> str:
    """Run a command; return what it printed, or fail with that and with its complaints."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=seconds,
        text=True,
        errors="replace",
        check=False,
    )
    is_wrong = status is not None and done.returncode != status
    if is_wrong or "Traceback" in done.stderr:
        sys.exit(f"{done.stdout}\n{done.stderr}\ntest-install: {command[0]} ended with {done.returncode}")
    return done.stdout


def report(text: str) -> None:
    """Print a check that passed, with the seconds since the start."""
    print(f"{time.monotonic() - STARTED_S:5.0f} s  {text}", flush=True)


STARTED_S = time.monotonic()

if __name__ == "__main__":
    sys.exit(main())
