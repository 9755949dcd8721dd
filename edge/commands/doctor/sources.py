"""Checks the camera with one frame and the microphone with one second of audio."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np

from edge.commands.doctor.finding import Finding, failed, without_subject
from edge.config import switches_path
from edge.errors import DeviceError
from edge.host.switches import read_switches
from edge.masking import mask_credentials
from edge.page.live_view import level_db
from edge.settings import Config
from edge.sources.camera import open_camera
from edge.sources.driver_threads import call_with_timeout
from edge.sources.microphone import open_microphone
from edge.values import Float32

FIRST_S = 15.0  # limit for opening the device and its first frame or second of audio
LISTEN_S = 1.0
BLACK = 16  # of 255: the noise of a sensor in a dark room exceeds this in some pixel
SILENT_DB = -90.0  # a muted microphone gives zeros; the noise of an open one is louder than this


def check_sources(config: Config, *, is_running: bool) -> Iterator[Finding]:
    """Check camera and microphone unless the config or a switch turns them off.

    `is_running`: a daemon runs, so it may hold the device.
    """
    is_on = read_switches(switches_path(config))
    parts: tuple[tuple[str, str, Callable[[], tuple[str, str]]], ...] = (
        ("camera", config.camera.source, lambda: check_camera(config)),
        ("microphone", config.microphone.source, lambda: check_microphone(config)),
    )
    for part, token, check in parts:
        name = mask_credentials(token)
        if token == "none":
            yield Finding(part, name, "skipped", "not configured")
        elif not is_on[part]:
            yield Finding(part, name, "skipped", "switched off over MQTT or on the page, so it is not opened")
        else:
            yield check_source(part, name, check, is_running=is_running)


def check_source(part: str, name: str, check: Callable[[], tuple[str, str]], *, is_running: bool) -> Finding:
    """Return the finding of `check`, which returns a detail and, for a failure, a remedy, or raises."""
    try:
        detail, remedy = call_with_timeout(part, name, check, limit_s=FIRST_S)
    except DeviceError as error:
        if error.reason == "absent":
            return Finding(part, name, "skipped", without_subject(part, name, error))
        if error.reason == "busy" and is_running:
            return Finding(part, name, "ok", "in use by the daemon; see its status")
        return failed(part, name, error)
    return Finding(part, name, "failed" if remedy else "ok", detail, remedy)


def check_camera(config: Config) -> tuple[str, str]:
    """Read one frame; return its size and brightness, and a remedy if it is black."""
    settings = config.camera
    camera = open_camera(settings.source, fps=settings.fps, width=settings.width, height=settings.height)
    try:
        frame = next(iter(camera), None)
    finally:
        camera.close()
    if frame is None:
        return "ends without a frame", "set another camera.source; `emotion-edge devices` lists cameras"
    height, width = frame.pixels.shape[:2]
    if frame.pixels.max() < BLACK:
        return f"{width}x{height}, but black", "remove the lens cover, or switch on a light"
    return f"{width}x{height}, mean brightness {frame.pixels.mean() / 2.55:.0f} %", ""


def check_microphone(config: Config) -> tuple[str, str]:
    """Record for a second; return the level, and a remedy if the audio is silent."""
    microphone = open_microphone(config.microphone.source)
    samples: list[Float32] = []
    end_s = time.monotonic() + LISTEN_S
    try:
        for chunk in microphone:
            samples.append(chunk.samples)
            if time.monotonic() >= end_s:
                break
    finally:
        microphone.close()
    loudness_db = level_db(np.concatenate([np.zeros(1, np.float32), *samples]))
    if loudness_db < SILENT_DB:
        return "silent as if muted", "`alsamixer`: F4, raise the level, M unmutes; or check the plug"
    return f"{loudness_db:.0f} dB (0 is full scale)", ""
