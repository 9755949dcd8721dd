"""Makes `edge/sources/clips/demo.mp4`, which `make run` plays where there is no camera and no microphone.

Everything in it is generated: a drawn face, and sentences that espeak-ng speaks.
Run it as `python -m tests.tools.make_demo_clip`; it needs the Debian package espeak-ng.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from edge.sources.media_files import read_audio

TARGET = Path(__file__).parents[2] / "edge" / "sources" / "clips" / "demo.mp4"
WIDTH, HEIGHT, FPS = 640, 480, 25
RATE_HZ = 16_000
Colour = tuple[int, int, int]
SKIN, HAIR, LIP = (222, 176, 148), (58, 40, 32), (178, 84, 84)


@dataclass(frozen=True)
class Expression:
    """How the drawn face looks; every number is 0 at rest."""

    smile: float = 0.0  # corners of the mouth, -1 down .. 1 up
    mouth: float = 0.0  # opening, 0 .. 1
    brow: float = 0.0  # height, -1 .. 1
    frown: float = 0.0  # inner ends of the brows, -1 up (sad) .. 1 down (angry)
    eyes: float = 0.0  # opening, -1 shut .. 1 wide

    def towards(self, other: Expression, share: float) -> Expression:
        """Return the expression that lies `share` 0..1 of the way to another."""
        names = [field.name for field in fields(self)]
        return Expression(*((1 - share) * getattr(self, n) + share * getattr(other, n) for n in names))


NEUTRAL = Expression()
SCENES = (
    (NEUTRAL, "The meeting starts at ten o'clock.", ("-p", "45", "-s", "150")),
    (
        Expression(smile=1, mouth=0.35, eyes=-0.2, brow=0.1),
        "Wonderful! I am so happy to see you!",
        ("-p", "75", "-s", "180"),
    ),
    (Expression(mouth=1, brow=1, eyes=1), "Oh! I did not expect that at all!", ("-p", "85", "-s", "190")),
    (
        Expression(smile=-0.9, frown=-1, brow=0.2, eyes=-0.3),
        "I am sorry. It is all gone.",
        ("-p", "25", "-s", "110"),
    ),
    (
        Expression(smile=-0.5, frown=1, brow=-0.7, eyes=0.1, mouth=0.15),
        "Stop that right now! I said no!",
        ("-p", "50", "-s", "200", "-a", "190"),
    ),
)


def main() -> None:
    """Draw and speak every scene, then write picture and sound into one file."""
    with tempfile.TemporaryDirectory() as directory:
        spoken = [speak(text, options, Path(directory)) for _, text, options in SCENES]
    pause = np.zeros(RATE_HZ * 6 // 10, np.float32)
    sound = np.concatenate([part for speech in spoken for part in (pause, speech, pause)])
    lengths_s = [(len(speech) + 2 * len(pause)) / RATE_HZ for speech in spoken]
    TARGET.parent.mkdir(exist_ok=True)
    write(TARGET, lengths_s, sound)
    print(f"{TARGET}: {sum(lengths_s):.1f} s, {TARGET.stat().st_size:,} bytes")


def speak(text: str, options: tuple[str, ...], directory: Path) -> NDArray[np.float32]:
    """Return the sentence at 16 kHz, as loud as a person at a desk, in a little room noise."""
    path = directory / "speech.wav"
    subprocess.run(["espeak-ng", "-v", "en-us", *options, "-w", str(path), text], check=True)
    samples = read_audio(path)
    return np.asarray(0.35 * samples / np.abs(samples).max(), np.float32)


def loudness_of(samples: NDArray[np.float32], count: int) -> NDArray[np.float64]:
    """Return how loud each of `count` frames is, 0..1: the level of 120 ms around it, from -40 to -12 dB."""
    per_frame = RATE_HZ // FPS
    power = np.square(samples[: count * per_frame]).reshape(count, per_frame).mean(axis=1)
    level_db = 10 * np.log10(np.convolve(power, [0.25, 0.5, 0.25], "same") + 1e-9)
    return np.clip((level_db + 40) / 28, 0, 1)


def draw(expression: Expression, t_s: float, loudness: float, talk: float) -> NDArray[np.uint8]:
    """Return one frame (480, 640, 3) RGB; the head sways a little and the jaw follows the voice.

    `talk` 0..1 is the share of speech, also between two syllables, when an open mouth closes.
    """
    scale = 2  # drawn large and averaged down, for soft edges
    ys, xs = np.mgrid[0 : HEIGHT * scale, 0 : WIDTH * scale].astype(np.float32) / scale
    wall = np.stack([188 - ys * 0.06, 196 - ys * 0.05, 202 - ys * 0.04], axis=-1)
    image = np.clip(wall, 0, 255).astype(np.uint8)
    cx = 320 + 14 * np.sin(0.9 * t_s)
    cy = 235 + 6 * np.sin(1.3 * t_s)

    def dim(share: float) -> Colour:
        red, green, blue = SKIN
        return int(red * share), int(green * share), int(blue * share)

    def point(x: float, y: float) -> tuple[int, int]:
        return round((cx + x) * scale), round((cy + y) * scale)

    def ellipse(x: float, y: float, rx: float, ry: float, colour: Colour, *arc: int) -> None:
        size = (max(1, round(rx * scale)), max(1, round(ry * scale)))
        start, end = arc or (0, 360)
        cv2.ellipse(image, point(x, y), size, 0, start, end, colour, -1, cv2.LINE_AA)

    def curve(points: Sequence[tuple[float, float]], colour: Colour, width: float) -> None:
        fit = np.polyfit([p[0] for p in points], [p[1] for p in points], 2)
        along = np.linspace(points[0][0], points[-1][0], 24)
        line = np.array([point(x, float(np.polyval(fit, x))) for x in along], np.int32)
        cv2.polylines(image, [line], False, colour, max(1, round(width * scale)), cv2.LINE_AA)

    ellipse(0, 250, 150, 110, (70, 88, 120))  # shoulders
    cv2.rectangle(image, point(-38, 90), point(38, 170), dim(0.86), -1)
    ellipse(0, -30, 106, 124, HAIR)
    ellipse(-94, 8, 13, 26, dim(0.9))
    ellipse(94, 8, 13, 26, dim(0.9))
    ellipse(0, 5, 90, 116, SKIN)
    ellipse(0, -88, 82, 44, HAIR, 180, 360)
    opening = float(np.clip(0.55 + 0.45 * expression.eyes, 0.06, 1.1))
    blink = 0.1 if (t_s % 3.7) < 0.12 else 1.0
    for side in (-1, 1):
        ellipse(side * 37, -14, 24, 17, dim(0.9))
        ellipse(side * 37, -12, 18, 13 * opening * blink, (245, 243, 240))
        if blink == 1.0:
            ellipse(side * 37, -12, 8, min(8.0, 12 * opening), (82, 58, 40))
            ellipse(side * 37, -12, 4, min(4.0, 9 * opening), (18, 14, 12))
            ellipse(side * 37 - 3, -15, 2, 2, (255, 255, 255))
        lid = -12 - 13 * opening * blink
        curve([(side * 57, -10), (side * 37, lid - 1), (side * 18, -10)], (64, 42, 36), 2.5)
        height = -42 - 12 * expression.brow
        inner = height + 11 * expression.frown
        outer = height + 3 - 3 * expression.frown
        curve([(side * 60, outer), (side * 40, (inner + outer) / 2 - 5), (side * 17, inner)], HAIR, 6)
    curve([(-4, -5), (-7, 15), (-13, 34)][::-1], dim(0.82), 2.5)
    curve([(-15, 36), (0, 42), (15, 36)], dim(0.68), 3)
    jaw = (1 - 0.6 * talk) * expression.mouth + 0.8 * loudness * talk
    lift = 10 * expression.smile
    reach = 27 + 9 * max(0.0, expression.smile) - 7 * expression.mouth
    upper, lower = 66 - 4 * jaw, 70 + 30 * jaw
    along = np.linspace(-reach, reach, 24)
    bend = 1 - (along / reach) ** 2  # 1 in the middle, 0 at the corners
    top = [(x, 68 - lift + (upper - 68 + lift) * b) for x, b in zip(along, bend, strict=True)]
    bottom = [(x, 68 - lift + (lower - 68 + lift) * b) for x, b in zip(along, bend, strict=True)]
    outline = np.array([point(x, y) for x, y in (*top, *bottom[::-1])], np.int32)
    cv2.fillPoly(image, [outline], (92, 32, 34), cv2.LINE_AA)
    if expression.smile > 0.3:
        teeth = np.array(
            [point(x, y) for x, y in (*top[3:-3], *[(x, y + 7) for x, y in top[3:-3]][::-1])], np.int32
        )
        cv2.fillPoly(image, [teeth], (244, 240, 232), cv2.LINE_AA)
        for side in (-1, 1):
            curve(
                [(side * 30, 36), (side * 42, 46), (side * 46, 62)][::side],
                dim(0.8),
                2.5,
            )
    cv2.polylines(image, [outline], True, LIP, 5 * scale, cv2.LINE_AA)
    # Light from above on the left: what makes a drawing look round.
    shade = 1.08 - 0.0011 * (xs - cx + 60) - 0.0009 * (ys - cy + 60)
    inside = ((xs - cx) / 90) ** 2 + ((ys - cy - 5) / 116) ** 2
    shade -= 0.16 * np.clip(inside, 0, 1) ** 2 * (inside < 1)
    lit = np.clip(image * shade[..., None], 0, 255).astype(np.uint8)
    small = cv2.resize(lit, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.GaussianBlur(small, (0, 0), 1.1), np.uint8)


def write(path: Path, lengths_s: list[float], sound: NDArray[np.float32]) -> None:
    """Encode H.264 and AAC, side by side, so that players and readers find both early."""
    noise = np.random.default_rng(7).normal(0, 0.002, len(sound))
    samples = (sound + noise).astype(np.float32)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS, options={"crf": "30", "preset": "slow"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = container.add_stream("aac", rate=RATE_HZ, layout="mono")
        audio.bit_rate = 40_000
        per_frame = RATE_HZ // FPS
        starts_s = np.cumsum([0.0, *lengths_s])
        count = len(samples) // per_frame
        loud = loudness_of(samples, count)
        for index in range(count):
            t_s = index / FPS
            scene = int(np.searchsorted(starts_s, t_s, side="right")) - 1
            share = float(np.clip((t_s - starts_s[scene]) / 0.5, 0, 1))
            before = SCENES[scene - 1][0] if scene else NEUTRAL
            part = samples[index * per_frame : (index + 1) * per_frame]
            talk = float(loud[max(0, index - 6) : index + 7].max())
            pixels = draw(before.towards(SCENES[scene][0], share), t_s, float(loud[index]), talk)
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            frame = av.AudioFrame.from_ndarray(part[None], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = RATE_HZ, index * per_frame
            container.mux(audio.encode(frame))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


if __name__ == "__main__":
    main()
