"""Montages are all combinations of faces, and results on them are counted correctly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.people.speaker import Speaker
from edge.values import SAMPLE_RATE_HZ
from models.data.datasets import DataError
from models.evaluation.figures.active_speaker import measure_speaking, summary, tally
from models.evaluation.figures.montages import (
    Instant,
    Montage,
    Talker,
    make_talker,
    montages,
    play,
    read_talkers,
)
from models.evaluation.measures import MEASURES
from tests.helpers.trees import no_bar


def made_talker(seed: int) -> Talker:
    """Return a talker with syllables of noise in 2 s of 3; the mouth opens with the level."""
    random = np.random.default_rng(seed)
    at_s = 0.4 + np.cumsum(random.uniform(0.18, 0.32, 6))
    t_s = np.arange(3 * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    opening = (random.uniform(0.4, 1, 6) * np.exp(-0.5 * ((t_s[:, None] - at_s) / 0.06) ** 2)).max(axis=1)
    # Log energy: a half open mouth is 26 dB below a wide open one.
    samples = 0.3 * random.standard_normal(t_s.size) * 10 ** (2.6 * (opening - 1))
    frame_s = np.arange(75) / 25
    return make_talker(
        str(seed),
        frame_s,
        0.3 * np.interp(frame_s, t_s, opening),
        samples.astype(np.float32),
        length_s=3.0,
    )


@pytest.mark.parametrize(
    ("faces", "is_shown", "count"), [(2, True, 20), (3, True, 30), (2, False, 30), (5, False, 0)]
)
def test_every_combination_of_faces_occurs_once(faces: int, is_shown: bool, count: int) -> None:
    """Of five talkers, each combination occurs with each of its own audible, or with each of the others."""
    made = list(montages(range(5), faces=faces, is_audible_shown=is_shown))
    assert len(set(made)) == len(made) == count
    assert all((montage.shown is not None) is is_shown for montage in made)


def test_only_inaudible_talkers_are_shifted() -> None:
    """Only inaudible talkers start at other positions of their loops."""
    random = np.random.default_rng(1)
    for montage in montages(range(4), faces=3, is_audible_shown=True, random=random):
        assert [start_s == 0 for start_s in montage.starts_s] == [
            who == montage.audible for who in montage.faces
        ]


def test_instants_are_counted_by_result() -> None:
    """Instants with speech after the warm-up are counted by result; `from_start` counts all."""
    track = {n: Speaker("track", n, 0.9, n) for n in (1, 2)}
    instants = [
        Instant(1.0, True, Speaker("uncertain")),
        Instant(2.0, True, track[2]),
        Instant(3.0, True, track[2]),
        Instant(3.5, True, track[2]),
        Instant(4.0, True, track[1]),
        Instant(4.5, True, Speaker("uncertain")),
        Instant(5.0, True, Speaker("none")),
        Instant(5.5, False, track[1]),
    ]
    found = tally(Montage((7, 8), 8, (0.0, 0.0)), instants)
    assert (found.right, found.wrong, found.uncertain, found.nobody) == (1, 1, 1, 1)
    assert (found.right_from_start, found.from_start, found.decided_s) == (3, 7, 1.5)
    shares = summary([found, found])
    assert shares["right"] == 0.25
    assert shares["right_interval_95"] == [0.25, 0.25]
    assert shares["seconds"] == 4.0


def test_any_track_is_wrong_for_an_off_screen_voice() -> None:
    """For an off-screen voice any track is wrong, and no track is right."""
    instants = [Instant(4.0, True, Speaker("track", 1, 0.9, 1)), Instant(4.5, True, Speaker("uncertain"))]
    found = tally(Montage((1, 2), 3, (0.0, 0.0)), instants)
    assert (found.total, found.right, found.wrong, found.uncertain) == (2, 1, 1, 1)
    assert found.decided_s is None


class AcceptingVad:
    """Voice activity detection that accepts noise as speech."""

    def process_10ms(self, _pcm: bytes) -> float:
        """Return the probability 1."""
        return 1.0


def test_audible_talker_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The audible talker is found from audio and mouths through the windows of the microphone."""
    monkeypatch.setattr("edge.voice.activity.MicroVad", AcceptingVad)  # noise must count as speech
    talkers = [made_talker(seed) for seed in (1, 2, 3)]
    assert 0.3 < talkers[0].speech.mean() < 0.8
    montage = Montage((2, 0), 0, (0.0, 0.0))
    found = tally(montage, play(montage, talkers, fps=12.5))
    assert found.wrong == 0
    assert found.right / found.total > 0.6


def test_no_clip_is_an_error(tmp_path: Path) -> None:
    """The error names a directory without video, or the missing data set."""
    assert MEASURES["speaking"] == "models.evaluation.figures.active_speaker:measure_speaking"
    with pytest.raises(DataError, match="no video in"):
        read_talkers(tmp_path, None)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="data set talking"):
        measure_speaking(tmp_path, tmp_path, no_bar)
