"""The recipes of the shipped networks by name, for `emotion-models train NAME`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name

from models.run import Run

# By name, where the function lies: PyTorch and what else a recipe needs is imported when it is asked for.
RECIPES: dict[str, str] = {
    "face-cnn": "models.recipes.face_cnn:train_face_cnn",
    "video-lstm": "models.recipes.video_lstm:train_video_lstm",
    "visual": "models.recipes.visual:train_visual",
    "voice-lstm": "models.recipes.voice_lstm:train_voice_lstm",
    "report-face": "models.recipes.report_baselines:train_face",
    "report-voice": "models.recipes.report_baselines:train_voice",
    "eye-state": "models.recipes.eye_state:train_eye_state",
    "mouth-state": "models.recipes.mouth_state:train_mouth_state",
    "multimodal": "models.recipes.multimodal:train_multimodal",
}


def run_recipe(name: str, run: Run) -> Path:
    """Train one of `RECIPES`; return its card."""
    train: Callable[[Run], Path] = resolve_name(RECIPES[name])
    return train(run)
