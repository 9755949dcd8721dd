"""Voice activity detection: the probability of speech in each step of 10 ms."""

from __future__ import annotations

import numpy as np
from pymicro_vad import MicroVad

from edge.values import Float32
from edge.voice.features import STEP

# The probability of pymicro-vad rises and falls this many steps after the energy of the speech (median of 50
# RAVDESS clips, both edges). Its first result comes after 76 steps.
VAD_LAG = 45
VAD_WARM_UP = 76
SPEECH_THRESHOLD = 0.5


class VoiceActivity:
    """Detects speech in a stream of samples, warmed up with silence so that the first step counts."""

    def __init__(self) -> None:
        self._vad = MicroVad()
        self._pending = np.empty(0, np.float32)  # samples of an incomplete step
        silence = bytes(2 * STEP)
        for _ in range(VAD_WARM_UP):
            self._vad.process_10ms(silence)

    def process(self, samples: Float32) -> Float32:
        """Add `samples` (n,); return the probability of speech (m,) float32 of each step they complete."""
        self._pending = np.concatenate([self._pending, samples])
        count = self._pending.size // STEP
        pcm = (np.clip(self._pending[: count * STEP], -1, 1) * 32767).astype(np.int16).tobytes()
        self._pending = self._pending[count * STEP :]
        steps = [self._vad.process_10ms(pcm[i : i + 2 * STEP]) for i in range(0, len(pcm), 2 * STEP)]
        return np.asarray(steps, np.float32)
