"""The doctor's stages for the camera and the microphone: one picture, one second of sound."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np

from edge.commands.doctor.stages import Finding, failed, plain
from edge.config import switches_path
from edge.errors import DeviceError
from edge.health import Health
from edge.host.switches import Switches
from edge.masking import mask_token
from edge.page.live_view import level_db
from edge.settings import Config
from edge.sources.camera import open_camera
from edge.sources.driver_threads import call_with_timeout
from edge.sources.microphone import open_microphone

FIRST_S = 15.0  # opening included
LISTEN_S = 1.0
BLACK = 16  # of 255: a sensor in a dark room has more noise than this somewhere
SILENT_DB = -90.0  # a microphone that is muted gives zeros; an open one hears at least its own noise


def examine_sources(config: Config, *, is_running: bool) -> Iterator[Finding]:
    """Try both, unless they are not configured or switched off; `is_running` tells of a daemon."""
    switches = Switches(
        switches_path(config), parts=(), apply=lambda *_: None, health=Health(lambda *_: None)
    )
    parts: tuple[tuple[str, str, Callable[[], tuple[str, str]]], ...] = (
        ("camera", config.camera.source, lambda: look(config)),
        ("microphone", config.microphone.source, lambda: hear(config)),
    )
    for part, token, try_it in parts:
        name = mask_token(token)
        if token == "none":
            yield Finding(part, name, "skipped", "not configured")
        elif not switches.is_on(part):
            yield Finding(part, name, "skipped", "switched off over MQTT or on the page, so it is not opened")
        else:
            yield tried(part, name, try_it, is_running=is_running)


def tried(part: str, name: str, try_it: Callable[[], tuple[str, str]], *, is_running: bool) -> Finding:
    """Return what `try_it` found, a detail and a remedy where that is bad, or what it raised."""
    try:
        detail, remedy = call_with_timeout(part, name, try_it, limit_s=FIRST_S)
    except DeviceError as error:
        if error.reason == "absent":
            return Finding(part, name, "skipped", plain(part, name, error))
        if error.reason == "busy" and is_running:
            return Finding(part, name, "ok", "the daemon has it; its status says how it does")
        return failed(part, name, error)
    return Finding(part, name, "failed" if remedy else "ok", detail, remedy)


def look(config: Config) -> tuple[str, str]:
    """Take one picture; return what it is like, and what to do about that."""
    settings = config.camera
    camera = open_camera(settings.source, fps=settings.fps, width=settings.width, height=settings.height)
    try:
        frame = next(iter(camera), None)
    finally:
        camera.close()
    if frame is None:
        return "ends without a picture", "name another source; `emotion-edge devices` lists cameras"
    height, width = frame.pixels.shape[:2]
    if frame.pixels.max() < BLACK:
        return f"{width}x{height}, but black", "take the cover off the lens, or switch a light on"
    return f"{width}x{height}, mean brightness {frame.pixels.mean() / 2.55:.0f} %", ""


def hear(config: Config) -> tuple[str, str]:
    """Listen for a second; return how loud that was, and what to do about silence."""
    microphone = open_microphone(config.microphone.source)
    samples: list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]] = []
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
        return (
            "silent as if muted",
            "`alsamixer`: F4, raise the level, M unmutes; or check the plug",
        )
    return f"{loudness_db:.0f} dB (0 is full scale)", ""
