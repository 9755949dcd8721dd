"""Lists cameras, microphones and accelerators with the token to put in the config.

All files are read below a root directory, so that a test can build a machine in another one.
"""

from __future__ import annotations

import importlib
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge.files import ROOT
from edge.sources.holders import holders, pcm_node

# Before and after a Coral stick has received its firmware.
CORAL_USB_IDS = ("1a6e:089a", "18d1:9302")
_CORAL_REMEDY = "install libedgetpu1-std: its libedgetpu.so.1 was not found"
_VULKAN_REMEDY = "no Vulkan; `sudo apt install libvulkan1 mesa-vulkan-drivers`"


@dataclass(frozen=True, slots=True)
class Device:
    """A device for the config. `detail` describes it, or gives the reason why it is not `usable`."""

    kind: Literal["camera", "microphone", "accelerator"]
    name: str
    token: str
    detail: str
    usable: bool


@dataclass(frozen=True, slots=True)
class AlsaCard:
    """A sound card: its number at this boot, its id for `alsa:CARD=`, and `vid:pid` if it is on USB."""

    index: int
    id: str
    title: str
    usb_id: str | None
    captures: bool


def list_devices(root: Path = ROOT) -> list[Device]:
    """Return all cameras, microphones and accelerators; the CPU is always one of them."""
    return [*list_cameras(root), *list_microphones(root), *list_accelerators(root)]


def list_cameras(root: Path = ROOT) -> list[Device]:
    """Return Pi cameras, then Jetson cameras, then USB cameras by names that stay the same."""
    return [*_pi_cameras(root), *_jetson_cameras(root), *_v4l2_cameras(root)]


def list_microphones(root: Path = ROOT) -> list[Device]:
    """Return the sound cards that can record, then the sound server of this session."""
    fault = "; `sudo apt install python3-pyaudio` to use it" if _missing("pyaudio") else ""
    devices = []
    for card in alsa_cards(root):
        if not card.captures:
            continue
        node = root / pcm_node(card.index).relative_to("/")
        problem = fault
        if not problem and node.exists() and not _may_use(node):
            problem = "; not permitted, `sudo usermod -aG audio $USER`"
        usb = f", usb:{card.usb_id}" if card.usb_id else ""
        detail = f"card {card.index}{usb}{_used_by(node, root)}{problem}"
        devices.append(Device("microphone", card.title, f"alsa:CARD={card.id}", detail, not problem))
    server = _sound_server(root)
    if server is not None:
        detail = f"its default source, {server}{fault}"
        devices.append(Device("microphone", "PulseAudio or PipeWire", "alsa:default", detail, not fault))
    return devices


def alsa_cards(root: Path = ROOT) -> list[AlsaCard]:
    """Return every card in /proc/asound, also those without an input."""
    cards = []
    for directory in _glob(root / "proc/asound", "card[0-9]*"):
        index, card_id = directory.name.removeprefix("card"), _text(directory / "id")
        if not index.isdigit() or not card_id:
            continue
        cards.append(
            AlsaCard(
                index=int(index),
                id=card_id,
                title=_card_title(root, int(index)) or card_id,
                usb_id=_text(directory / "usbid").lower() or None,
                captures=any(_glob(directory, "pcm*c")),
            )
        )
    return sorted(cards, key=lambda card: card.index)


def list_accelerators(root: Path = ROOT) -> list[Device]:
    """Return the CPU, Coral Edge TPUs on USB and PCIe, and Vulkan GPUs."""
    threads = os.cpu_count() or 1
    cpu = Device("accelerator", "CPU", "cpu", f"{platform.machine()}, {threads} cores", True)
    return [cpu, *_edge_tpus(root), *_gpus(root)]


def edge_tpu_nodes(root: Path = ROOT) -> list[Path]:
    """Return the device nodes of Coral Edge TPUs, on PCIe and on USB."""
    return [*_glob(root / "dev", "apex_[0-9]*"), *_coral_usb_nodes(root)]


def forbidden_gpus(root: Path = ROOT) -> list[Path]:
    """Return the render nodes that this user may not open."""
    return [node for node in _glob(root / "dev/dri", "renderD*") if not _may_use(node)]


def _pi_cameras(root: Path) -> Iterator[Device]:
    """Return what picamera2 finds; none if `root` is not this machine."""
    from edge.sources.picamera import (
        load_picamera2,  # it imports OpenCV, which a list of microphones does not need
    )

    if root != ROOT:
        return
    try:
        picamera2 = load_picamera2()
    except ImportError:
        return
    for camera in picamera2.Picamera2.global_camera_info():
        # libcamera lists USB cameras too; those are used through V4L2.
        if "usb" in str(camera.get("Id", "")):
            continue
        detail = f"Pi camera, {camera.get('Id', '')}"
        yield Device("camera", str(camera["Model"]), f"picamera:{camera['Num']}", detail, True)


def _jetson_cameras(root: Path) -> Iterator[Device]:
    """Find the raw sensors of NVIDIA's V4L2 driver; only GStreamer can convert their frames."""
    number = 0
    for node in _glob(root / "sys/class/video4linux", "video*"):
        name = _text(node / "name")
        if not name.startswith("vi-output"):
            continue
        is_usable = (root / "usr/bin/gst-launch-1.0").exists()
        remedy = "" if is_usable else "; `sudo apt install gstreamer1.0-tools` to use it"
        token = f"gstreamer:nvarguscamerasrc sensor-id={number}"
        title = name.removeprefix("vi-output").strip(", ") or node.name
        yield Device("camera", title, token, f"Jetson camera, {node.name}{remedy}", is_usable)
        number += 1


def _v4l2_cameras(root: Path) -> Iterator[Device]:
    by_id = _glob(root / "dev/v4l/by-id", "*-video-index0")  # the others carry metadata
    # Equal cameras without a serial number share one by-id name, so the second one is found by its port.
    by_path = _glob(root / "dev/v4l/by-path", "*-usb-*-video-index0")
    seen = set()
    for link in [*by_id, *by_path]:
        node = (root / "dev" / link.resolve().name) if link.is_symlink() else link
        if node in seen:
            continue
        seen.add(node)
        title = _text(root / "sys/class/video4linux" / node.name / "name") or link.name
        token = f"v4l2:/{link.relative_to(root)}"
        if not node.exists():
            yield Device("camera", title, token, "its device node is gone; connect it again", False)
        elif not _may_use(node):
            yield Device("camera", title, token, "not permitted; `sudo usermod -aG video $USER`", False)
        else:
            yield Device("camera", title, token, f"USB camera, {node.name}{_used_by(node, root)}", True)


def _edge_tpus(root: Path) -> Iterator[Device]:
    library = _library(root, "libedgetpu.so.1")
    for node in edge_tpu_nodes(root):
        bus = f"PCIe /dev/{node.name}" if node.name.startswith("apex_") else "USB"
        if library is None:
            detail, usable = f"{bus}; {_CORAL_REMEDY}", False
        elif not _may_use(node):
            detail, usable = f"{bus}, not permitted; `sudo usermod -aG plugdev,apex $USER`", False
        else:
            detail, usable = f"{bus}, {library}", True
        yield Device("accelerator", "Coral Edge TPU", "edgetpu", detail, usable)


def _gpus(root: Path) -> Iterator[Device]:
    """Return the GPUs, usable if Vulkan and any of its drivers are installed."""
    drivers = [
        driver.name
        for directory in ("usr/share/vulkan/icd.d", "usr/local/share/vulkan/icd.d", "etc/vulkan/icd.d")
        for driver in _glob(root / directory, "*.json")
    ]
    loader = _library(root, "libvulkan.so.1")
    if root == ROOT and (named := os.environ.get("VK_ICD_FILENAMES")):
        # Vulkan then uses only the drivers in that variable; a software driver has no node below /dev/dri.
        detail = f"Vulkan {Path(named).name}" if loader else f"{named}; {_VULKAN_REMEDY}"
        yield Device("accelerator", "Vulkan", "gpu", detail, loader is not None)
        return
    for node in _glob(root / "dev/dri", "renderD*"):
        uevent = _text(root / "sys/class/drm" / node.name / "device/uevent").splitlines()
        name = next((line.removeprefix("DRIVER=") for line in uevent if line.startswith("DRIVER=")), "GPU")
        if loader is None or not drivers:
            detail, usable = _VULKAN_REMEDY, False
        elif not _may_use(node):
            detail, usable = "not permitted; `sudo usermod -aG render $USER`", False
        else:
            detail, usable = f"Vulkan {', '.join(drivers)}", True
        yield Device("accelerator", name, "gpu", f"{node.name}, {detail}", usable)


def _coral_usb_nodes(root: Path) -> Iterator[Path]:
    for device in _glob(root / "sys/bus/usb/devices", "*"):
        if f"{_text(device / 'idVendor')}:{_text(device / 'idProduct')}".lower() in CORAL_USB_IDS:
            numbers = (_text(device / name).zfill(3) for name in ("busnum", "devnum"))
            yield root.joinpath("dev/bus/usb", *numbers)


def _library(root: Path, name: str) -> Path | None:
    for directory in ("usr/lib", "usr/local/lib", "lib"):
        for library in (root / directory / name, *_glob(root / directory, f"*-linux-gnu/{name}")):
            if library.exists():
                return library
    return None


def _card_title(root: Path, index: int) -> str:
    """Return the title in /proc/asound/cards: ` 1 [Device         ]: USB-Audio - USB PnP Sound Device`."""
    for line in _text(root / "proc/asound/cards").splitlines():
        number, _, title = line.partition("]:")
        if number.split("[")[0].strip() == str(index):
            return title.partition(" - ")[2].strip()
    return ""


def _missing(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError:
        return True
    return False


def _may_use(node: Path) -> bool:
    return os.access(node, os.R_OK | os.W_OK, effective_ids=True)


def _used_by(node: Path, root: Path) -> str:
    found = holders(node, root=root)
    return "".join(f", in use by {pid} ({command})" for pid, command in found)


def _sound_server(root: Path) -> Path | None:
    """Return the socket of this session's sound server, where ALSA can reach it."""
    directory = os.environ.get("XDG_RUNTIME_DIR")
    if not directory or _library(root, "alsa-lib/libasound_module_pcm_pulse.so") is None:
        return None
    socket = root / directory.lstrip("/") / "pulse/native"
    return socket if socket.exists() else None


def _glob(directory: Path, pattern: str) -> list[Path]:
    return sorted(directory.glob(pattern)) if directory.is_dir() else []


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
