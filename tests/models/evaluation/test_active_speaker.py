"""Montages are every choice of faces, and what is said of them is counted as it was meant."""

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
    """Return one who says syllables of noise for 2 s of 3, with a mouth that opens as it is loud."""
    random = np.random.default_rng(seed)
    at_s = 0.4 + np.cumsum(random.uniform(0.18, 0.32, 6))
    t_s = np.arange(3 * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    opening = (random.uniform(0.4, 1, 6) * np.exp(-0.5 * ((t_s[:, None] - at_s) / 0.06) ** 2)).max(axis=1)
    # Energies are logarithms: what looks half open is 26 dB below what looks wide open.
    samples = 0.3 * random.standard_normal(t_s.size) * 10 ** (2.6 * (opening - 1))
    seen_s = np.arange(75) / 25
    return make_talker(
        str(seed),
        seen_s,
        0.3 * np.interp(seen_s, t_s, opening),
        samples.astype(np.float32),
        length_s=3.0,
    )


@pytest.mark.parametrize(
    ("faces", "is_shown", "count"), [(2, True, 20), (3, True, 30), (2, False, 30), (5, False, 0)]
)
def test_every_choice_of_faces_comes_once(faces: int, is_shown: bool, count: int) -> None:
    """Of five talkers, each choice with each of its own heard, or with each of the others."""
    made = list(montages(range(5), faces=faces, is_heard_shown=is_shown))
    assert len(set(made)) == len(made) == count
    assert all((montage.shown is not None) is is_shown for montage in made)


def test_who_is_heard_keeps_time_when_the_others_are_shifted() -> None:
    """Only the silent ones begin elsewhere in their loops."""
    random = np.random.default_rng(1)
    for montage in montages(range(4), faces=3, is_heard_shown=True, random=random):
        assert [start_s == 0 for start_s in montage.starts_s] == [
            who == montage.heard for who in montage.faces
        ]


def test_instants_are_counted_by_what_was_said() -> None:
    """After the warm-up and in speech only: right, wrong, uncertain, nobody; beside it right of all."""
    track = {n: Speaker("track", n, 0.9, n) for n in (1, 2)}
    said = [
        Instant(1.0, True, Speaker("uncertain")),
        Instant(2.0, True, track[2]),
        Instant(3.0, True, track[2]),
        Instant(3.5, True, track[2]),
        Instant(4.0, True, track[1]),
        Instant(4.5, True, Speaker("uncertain")),
        Instant(5.0, True, Speaker("nobody")),
        Instant(5.5, False, track[1]),
    ]
    found = tally(Montage((7, 8), 8, (0.0, 0.0)), said)
    assert (found.right, found.wrong, found.uncertain, found.nobody) == (1, 1, 1, 1)
    assert (found.right_from_start, found.from_start, found.decided_s) == (3, 7, 1.5)
    shares = summary([found, found])
    assert shares["right"] == 0.25
    assert shares["right_interval_95"] == [0.25, 0.25]
    assert shares["seconds"] == 4.0


def test_voice_from_elsewhere_has_no_right_face() -> None:
    """A name is wrong, whoever's it is, and it is right to name nobody."""
    said = [Instant(4.0, True, Speaker("track", 1, 0.9, 1)), Instant(4.5, True, Speaker("uncertain"))]
    found = tally(Montage((1, 2), 3, (0.0, 0.0)), said)
    assert (found.total, found.right, found.wrong, found.uncertain) == (2, 1, 1, 1)
    assert found.decided_s is None


class Credulous:
    """Voice activity detection to which noise is speech."""

    def process_10ms(self, _pcm: bytes) -> float:
        """Return that it is speech."""
        return 1.0


def test_montage_of_made_talkers_finds_who_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """From sound and mouths to names, through the windows of the microphone."""
    monkeypatch.setattr("edge.voice.activity.MicroVad", Credulous)  # which is not what this is about
    talkers = [made_talker(seed) for seed in (1, 2, 3)]
    assert 0.3 < talkers[0].speech.mean() < 0.8
    montage = Montage((2, 0), 0, (0.0, 0.0))
    found = tally(montage, play(montage, talkers, fps=12.5))
    assert found.wrong == 0
    assert found.right / found.total > 0.6


def test_no_clip_is_an_error(tmp_path: Path) -> None:
    """A directory without video, and data without the set, are named."""
    assert MEASURES["speaking"] == "models.evaluation.figures.active_speaker:measure_speaking"
    with pytest.raises(DataError, match="no video in"):
        read_talkers(tmp_path, None)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="data set talking"):
        measure_speaking(tmp_path, tmp_path, no_bar)
