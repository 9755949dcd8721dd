"""What the page may know beside the payloads, and for how long."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edge.page.live_view import HOUR_S, PREVIEW_S, QUIETEST_DB, Box, LiveView
from edge.values import AudioChunk, Face, Frame

SECOND_NS = 1_000_000_000


def frame(t_s: float, value: int = 200) -> Frame:
    """Return a grey picture of 80 x 40."""
    return Frame(np.full((40, 80, 3), value, np.uint8), int(t_s * SECOND_NS))


def test_boxes_are_shares_of_the_picture_and_grow_old() -> None:
    """A box is told in shares of width and height, and no longer when its frame is old."""
    board = LiveView()
    board.add_frame(frame(10), [Face((8, 10, 40, 20), 0.9, None, 3)])
    view = board.view(11 * SECOND_NS)
    assert view.boxes == (Box("person-3", (0.1, 0.25, 0.5, 0.5)),)
    assert view.size_px == (80, 40)
    assert board.view(int(11.5 * SECOND_NS)).boxes == ()


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
    board = LiveView()
    assert board.view(SECOND_NS).level_db is None
    board.add_chunk(AudioChunk(samples.astype(np.float32), SECOND_NS))
    assert board.view(SECOND_NS).level_db == pytest.approx(level_db, abs=0.05)
    assert board.view(3 * SECOND_NS).level_db is None


def test_hour_keeps_changes_and_what_it_began_with() -> None:
    """The same emotion again is no change; the last change before the hour stays, those before it go."""
    board = LiveView()
    for t_s, emotion in [(0, "neutral"), (10, "neutral"), (20, "happiness"), (HOUR_S, "fear")]:
        board.note(emotion, int(t_s * SECOND_NS))
    now_ns = int((HOUR_S + 21) * SECOND_NS)
    board.note("fear", now_ns)
    assert board.view(now_ns).hour == ((HOUR_S + 1, "happiness"), (21.0, "fear"))


def test_no_pixel_is_kept_without_a_preview() -> None:
    """A picture exists only from the start of a preview to its end, one nanosecond before it included."""
    board = LiveView()
    board.add_frame(frame(1), [])
    assert board.picture(SECOND_NS) is None
    board.start_preview(2 * SECOND_NS)
    assert board.picture(2 * SECOND_NS) is None  # the frame before the click is not shown
    board.add_frame(frame(2), [])
    packed = board.picture(int((2 + PREVIEW_S) * SECOND_NS) - 1)
    assert packed is not None
    picture = cv2.imdecode(np.frombuffer(packed, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert picture.shape == (40, 80, 3)
    assert abs(int(picture.mean()) - 200) <= 2
    assert board.picture(int((2 + PREVIEW_S) * SECOND_NS)) is None


def test_stopped_preview_forgets_the_pixels() -> None:
    """After `stop_preview` there is no picture, and the next frame is not kept either."""
    board = LiveView()
    board.start_preview(SECOND_NS)
    board.add_frame(frame(1), [])
    assert board.view(SECOND_NS).preview_s == PREVIEW_S
    board.stop_preview()
    assert board.picture(SECOND_NS) is None
    board.add_frame(frame(2), [])
    assert board.picture(2 * SECOND_NS) is None
    assert board.view(2 * SECOND_NS).preview_s == 0.0


def test_preview_is_a_copy() -> None:
    """A source that uses its buffer again does not change what was kept."""
    board = LiveView()
    board.start_preview(SECOND_NS)
    shown = frame(1)
    board.add_frame(shown, [])
    shown.pixels[:] = 0
    packed = board.picture(SECOND_NS)
    assert packed is not None
    picture = cv2.imdecode(np.frombuffer(packed, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert picture is not None
    assert picture.mean() > 190
