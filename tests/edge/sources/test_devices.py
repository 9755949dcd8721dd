"""What `emotion-edge devices` lists on an empty machine and on machines built from small files."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

from edge.__main__ import main
from edge.commands.devices import print_devices
from edge.delivery.messages import load_schema
from edge.errors import DeviceError
from edge.inference.backends import candidate_backends
from edge.settings import CAMERA_TOKENS, MICROPHONE_TOKENS
from edge.sources.camera import open_camera
from edge.sources.devices import (
    AlsaCard,
    Device,
    alsa_cards,
    edge_tpu_nodes,
    list_accelerators,
    list_cameras,
    list_devices,
    list_microphones,
)
from tests.helpers.fake_picamera2 import Picamera2, picamera2  # noqa: F401 - a fixture


def write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Build a machine: a webcam, a card that plays, a USB microphone, a Coral stick, a GPU with Vulkan."""
    write(tmp_path / "dev/video0")
    write(tmp_path / "sys/class/video4linux/video0/name", "HD Pro Webcam C920\n")
    by_id = tmp_path / "dev/v4l/by-id"
    by_id.mkdir(parents=True)
    (by_id / "usb-046d_C920-video-index0").symlink_to("../../video0")
    (by_id / "usb-046d_C920-video-index1").symlink_to("../../video1")
    write(
        tmp_path / "proc/asound/cards",
        " 0 [vc4hdmi        ]: vc4-hdmi - vc4-hdmi\n                      vc4-hdmi\n"
        " 1 [Device         ]: USB-Audio - USB PnP Sound Device\n                      C-Media at usb-1.2\n",
    )
    write(tmp_path / "proc/asound/card0/id", "vc4hdmi\n")
    write(tmp_path / "proc/asound/card0/pcm0p/info")
    write(tmp_path / "proc/asound/card1/id", "Device\n")
    write(tmp_path / "proc/asound/card1/usbid", "0D8C:0014\n")
    write(tmp_path / "proc/asound/card1/pcm0c/info")
    write(tmp_path / "sys/bus/usb/devices/1-1/idVendor", "1a6e\n")
    write(tmp_path / "sys/bus/usb/devices/1-1/idProduct", "089a\n")
    write(tmp_path / "sys/bus/usb/devices/1-1/busnum", "1\n")
    write(tmp_path / "sys/bus/usb/devices/1-1/devnum", "4\n")
    write(tmp_path / "dev/bus/usb/001/004")
    write(tmp_path / "sys/bus/usb/devices/usb1/idVendor", "1d6b\n")
    write(tmp_path / "usr/lib/aarch64-linux-gnu/libedgetpu.so.1")
    write(tmp_path / "usr/lib/aarch64-linux-gnu/libvulkan.so.1")
    write(tmp_path / "usr/share/vulkan/icd.d/broadcom_icd.aarch64.json", "{}")
    write(tmp_path / "dev/dri/renderD128")
    write(tmp_path / "sys/class/drm/renderD128/device/uevent", "DRIVER=v3d\nOF_NAME=v3d\n")
    return tmp_path


def accelerators(root: Path) -> dict[str, Device]:
    return {device.token: device for device in list_accelerators(root)}


def test_empty_machine_has_a_cpu(tmp_path: Path) -> None:
    """Without any device, the list has only the CPU."""
    assert [(d.kind, d.token, d.usable) for d in list_devices(tmp_path)] == [("accelerator", "cpu", True)]


def test_this_machine_can_be_listed() -> None:
    """Every token of this machine is valid in the config."""
    devices = list_devices()
    assert "cpu" in [device.token for device in devices]
    for device in devices:
        pattern = {"camera": CAMERA_TOKENS, "microphone": MICROPHONE_TOKENS}.get(device.kind)
        assert pattern is None or pattern.fullmatch(device.token)


def test_json_fits_its_schema(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`devices --json` of this machine, and of one with every device, matches the schema."""
    validator = jsonschema.Draft202012Validator(load_schema("devices"))
    assert main(["devices", "--json"]) == 0
    validator.validate(json.loads(capsys.readouterr().out))
    print_devices(list_devices(machine), as_json=True)
    printed = json.loads(capsys.readouterr().out)
    validator.validate(printed)
    assert [device["kind"] for device in printed] == ["camera", "microphone", *["accelerator"] * 3]
    assert not validator.is_valid([{**printed[0], "secret": 1}])


def test_webcam(machine: Path) -> None:
    """A USB camera has its own name and a stable token; its metadata node is not a camera."""
    assert list_cameras(machine) == [
        Device(
            "camera",
            "HD Pro Webcam C920",
            "v4l2:/dev/v4l/by-id/usb-046d_C920-video-index0",
            "USB camera, video0",
            True,
        )
    ]


def test_unplugged_webcam(machine: Path) -> None:
    """A link without its node is listed as not usable."""
    (machine / "dev/video0").unlink()
    (camera,) = list_cameras(machine)
    assert not camera.usable
    assert "connect it again" in camera.detail


def test_sound_cards(machine: Path) -> None:
    """Cards have an id, a number and USB ids, and are marked if they can record."""
    assert alsa_cards(machine) == [
        AlsaCard(index=0, id="vc4hdmi", title="vc4-hdmi", usb_id=None, captures=False),
        AlsaCard(index=1, id="Device", title="USB PnP Sound Device", usb_id="0d8c:0014", captures=True),
    ]


def test_ten_cards_are_in_order(machine: Path) -> None:
    """Card 10 comes after card 2."""
    for index in (10, 2):
        write(machine / f"proc/asound/card{index}/id", f"Card{index}\n")
    assert [card.index for card in alsa_cards(machine)] == [0, 1, 2, 10]


def test_microphones(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only cards that record are microphones; without PyAudio they are listed with the package to install."""
    (microphone,) = list_microphones(machine)
    assert (microphone.token, microphone.name) == ("alsa:CARD=Device", "USB PnP Sound Device")
    assert "usb:0d8c:0014" in microphone.detail
    monkeypatch.setitem(sys.modules, "pyaudio", None)
    (microphone,) = list_microphones(machine)
    assert not microphone.usable
    assert "apt install python3-pyaudio" in microphone.detail


def test_coral_needs_its_library(machine: Path) -> None:
    """A Coral stick is usable with libedgetpu, and listed with the remedy without it."""
    assert accelerators(machine)["edgetpu"].usable
    (machine / "usr/lib/aarch64-linux-gnu/libedgetpu.so.1").unlink()
    coral = accelerators(machine)["edgetpu"]
    assert not coral.usable
    assert "libedgetpu1-std" in coral.detail


@pytest.mark.parametrize("product", ["18d1:9302", "18d1:9303"])
def test_coral_with_firmware(machine: Path, product: str) -> None:
    """After its first use the stick has other ids; other Google devices are not Corals."""
    write(machine / "sys/bus/usb/devices/1-1/idVendor", product[:4])
    write(machine / "sys/bus/usb/devices/1-1/idProduct", product[5:])
    assert ("edgetpu" in accelerators(machine)) == (product == "18d1:9302")


def test_coral_on_pcie(tmp_path: Path) -> None:
    """The PCIe board is a node in /dev."""
    write(tmp_path / "dev/apex_0")
    assert "PCIe /dev/apex_0" in accelerators(tmp_path)["edgetpu"].detail


def test_edge_tpu_nodes(machine: Path) -> None:
    """The nodes that a Coral needs: that of the stick on USB and that of the board."""
    assert edge_tpu_nodes(machine) == [machine / "dev/bus/usb/001/004"]
    write(machine / "dev/apex_0")
    assert edge_tpu_nodes(machine) == [machine / "dev/apex_0", machine / "dev/bus/usb/001/004"]


def test_vulkan_driver_named_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver in VK_ICD_FILENAMES is a GPU to try, although it has no node in /dev."""
    monkeypatch.setenv("VK_ICD_FILENAMES", "/opt/driver_icd.json")
    assert "driver_icd.json" in {device.token: device for device in list_accelerators()}["gpu"].detail
    assert candidate_backends()[-2:] == ("gpu", "cpu")


def test_gpu_needs_vulkan(machine: Path) -> None:
    """A GPU is usable with a Vulkan driver and loader; without either the packages are named."""
    gpu = accelerators(machine)["gpu"]
    assert (gpu.name, gpu.usable) == ("v3d", True)
    (machine / "usr/share/vulkan/icd.d/broadcom_icd.aarch64.json").unlink()
    gpu = accelerators(machine)["gpu"]
    assert not gpu.usable
    assert "mesa-vulkan-drivers" in gpu.detail


@pytest.fixture
def unprivileged(machine: Path) -> Iterator[Path]:
    """Run as a user without groups, because root may open everything."""
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory) / "machine"
        shutil.copytree(machine, copy, symlinks=True)
        for part in (Path(directory), copy):
            part.chmod(0o755)
        for node in ("dev/video0", "dev/snd/pcmC1D0c"):
            write(copy / node)
            (copy / node).chmod(0)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            yield copy
        finally:
            os.seteuid(user)


def test_not_permitted(unprivileged: Path) -> None:
    """A camera or card that the user may not open is listed with the group to join, and refused."""
    (camera,) = list_cameras(unprivileged)
    (microphone,) = list_microphones(unprivileged)
    assert not camera.usable
    assert "usermod -aG video" in camera.detail
    assert not microphone.usable
    assert "usermod -aG audio" in microphone.detail
    with pytest.raises(DeviceError, match="not permitted; `sudo usermod -aG video") as caught:
        open_camera(f"v4l2:{unprivileged}/dev/video0", fps=10, width=64, height=48)
    assert caught.value.reason == "no_permission"


def test_two_cameras_of_one_kind(machine: Path) -> None:
    """Without serial numbers only one has a by-id name; the other is found by its USB port."""
    write(machine / "dev/video2")
    by_path = machine / "dev/v4l/by-path"
    by_path.mkdir(parents=True)
    (by_path / "platform-xhci-usb-0:1.1:1.0-video-index0").symlink_to("../../video0")
    (by_path / "platform-xhci-usb-0:1.2:1.0-video-index0").symlink_to("../../video2")
    (by_path / "platform-bcm2835-codec-video-index0").symlink_to("../../video10")
    assert [camera.token for camera in list_cameras(machine)] == [
        "v4l2:/dev/v4l/by-id/usb-046d_C920-video-index0",
        "v4l2:/dev/v4l/by-path/platform-xhci-usb-0:1.2:1.0-video-index0",
    ]


def test_jetson_cameras_come_first(machine: Path) -> None:
    """Sensors on ribbon cables have GStreamer tokens, in the order in which NVIDIA counts them."""
    for number, sensor in ((1, "imx219 9-0010"), (2, "imx477 10-001a")):
        write(machine / f"sys/class/video4linux/video{number}/name", f"vi-output, {sensor}\n")
    assert not list_cameras(machine)[0].usable, "without gst-launch-1.0"
    write(machine / "usr/bin/gst-launch-1.0")
    cameras = list_cameras(machine)
    assert [(camera.name, camera.token) for camera in cameras[:2]] == [
        ("imx219 9-0010", "gstreamer:nvarguscamerasrc sensor-id=0"),
        ("imx477 10-001a", "gstreamer:nvarguscamerasrc sensor-id=1"),
    ]
    assert all(CAMERA_TOKENS.fullmatch(camera.token) for camera in cameras)


def test_who_uses_a_microphone(machine: Path) -> None:
    """A card in use is listed with the program that has it."""
    write(machine / "proc/asound/card1/pcm0c/sub0/status", "state: RUNNING\nowner_pid   : 812\n")
    write(machine / "proc/812/comm", "arecord\n")
    (microphone,) = list_microphones(machine)
    assert "in use by 812 (arecord)" in microphone.detail


def test_sound_server_is_a_microphone(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session with PulseAudio or PipeWire has ALSA's default, where ALSA knows the way to it."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    write(machine / "run/user/1000/pulse/native")
    assert len(list_microphones(machine)) == 1
    write(machine / "usr/lib/aarch64-linux-gnu/alsa-lib/libasound_module_pcm_pulse.so")
    card, server = list_microphones(machine)
    assert (card.token, server.token) == ("alsa:CARD=Device", "alsa:default")


def test_pi_camera_is_first(picamera2: type[Picamera2]) -> None:  # noqa: ARG001, F811 - installs the module
    """A Pi camera comes with its picamera token; a USB camera that libcamera lists too does not."""
    first = list_cameras()[0]
    assert (first.token, first.name) == ("picamera:0", "imx708")
