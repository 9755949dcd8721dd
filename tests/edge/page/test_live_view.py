"""The live view: boxes, level, last hour and preview, and how long each is kept."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edge.page.live_view import HOUR_S, PREVIEW_S, QUIETEST_DB, Box, LiveView
from edge.values import AudioChunk, Face, Frame

SECOND_NS = 1_000_000_000


def frame(t_s: float, value: int = 200) -> Frame:
    """Return a grey frame of 80 x 40 pixels."""
    return Frame(np.full((40, 80, 3), value, np.uint8), int(t_s * SECOND_NS))


def test_boxes_are_shares_of_the_frame_and_expire() -> None:
    """A box is given in shares of width and height, until its frame is `FRESH_S` old."""
    live_view = LiveView()
    live_view.add_frame(frame(10), [Face((8, 10, 40, 20), 0.9, None, 3)])
    state = live_view.state(11 * SECOND_NS)
    assert state.boxes == (Box("person-3", (0.1, 0.25, 0.5, 0.5)),)
    assert state.size_px == (80, 40)
    assert live_view.state(int(11.5 * SECOND_NS)).boxes == ()


@pytest.mark.parametrize(
    ("samples", "level_db"),
    [
        (np.ones(160), 0.0),
        (np.full(160, 0.1), -20.0),
        (np.zeros(160), QUIETEST_DB),
        (np.zeros(0), QUIETEST_DB),
    ],
)
def test_level_is_the_root_mean_square(samples: np.ndarray, level_db: float) -> None:
    """Full scale is 0 dB, a tenth of it -20 dB, silence the quietest step."""
    live_view = LiveView()
    assert live_view.state(SECOND_NS).level_db is None
    live_view.add_chunk(AudioChunk(samples.astype(np.float32), SECOND_NS))
    assert live_view.state(SECOND_NS).level_db == pytest.approx(level_db, abs=0.05)
    assert live_view.state(3 * SECOND_NS).level_db is None


def test_hour_keeps_changes_and_its_first_emotion() -> None:
    """A repeated emotion is no change; of the changes before the hour only the last one is kept."""
    live_view = LiveView()
    for t_s, emotion in [(0, "neutral"), (10, "neutral"), (20, "happiness"), (HOUR_S, "fear")]:
        live_view.add_emotion(emotion, int(t_s * SECOND_NS))
    now_ns = int((HOUR_S + 21) * SECOND_NS)
    live_view.add_emotion("fear", now_ns)
    assert live_view.state(now_ns).hour == ((HOUR_S + 1, "happiness"), (21.0, "fear"))


def test_no_pixel_is_kept_without_a_preview() -> None:
    """An image exists from the start of a preview until one nanosecond before its end."""
    live_view = LiveView()
    live_view.add_frame(frame(1), [])
    assert live_view.preview_jpeg(SECOND_NS, "a") is None
    live_view.start_preview(2 * SECOND_NS, "a")
    assert live_view.preview_jpeg(2 * SECOND_NS, "a") is None  # the frame before the start is not kept
    live_view.add_frame(frame(2), [])
    jpeg = live_view.preview_jpeg(int((2 + PREVIEW_S) * SECOND_NS) - 1, "a")
    assert jpeg is not None
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    assert image.shape == (40, 80, 3)
    assert abs(int(image.mean()) - 200) <= 2
    assert live_view.preview_jpeg(int((2 + PREVIEW_S) * SECOND_NS), "a") is None


def test_stopped_preview_deletes_the_pixels() -> None:
    """After `stop_preview` no image exists, and the next frame is not kept."""
    live_view = LiveView()
    live_view.start_preview(SECOND_NS, "a")
    live_view.add_frame(frame(1), [])
    assert live_view.state(SECOND_NS).preview_s == PREVIEW_S
    live_view.stop_preview()
    assert live_view.preview_jpeg(SECOND_NS, "a") is None
    live_view.add_frame(frame(2), [])
    assert live_view.preview_jpeg(2 * SECOND_NS, "a") is None
    assert live_view.state(2 * SECOND_NS).preview_s == 0.0


def test_preview_is_a_copy() -> None:
    """A source that reuses its buffer does not change the preview."""
    live_view = LiveView()
    live_view.start_preview(SECOND_NS, "a")
    shown = frame(1)
    live_view.add_frame(shown, [])
    shown.pixels[:] = 0
    jpeg = live_view.preview_jpeg(SECOND_NS, "a")
    assert jpeg is not None
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert image is not None
    assert image.mean() > 190


@pytest.mark.parametrize("session", ["", "b", "\u2603"])
def test_preview_is_for_the_session_that_asked(session: str) -> None:
    """No other session gets the image, also not one without a name."""
    live_view = LiveView()
    live_view.start_preview(SECOND_NS, "a")
    live_view.add_frame(frame(1), [])
    assert live_view.preview_jpeg(SECOND_NS, session) is None
    assert live_view.preview_jpeg(SECOND_NS, "a") is not None
    live_view.stop_preview()
    live_view.add_frame(frame(1), [])
    assert live_view.preview_jpeg(SECOND_NS, "") is None
