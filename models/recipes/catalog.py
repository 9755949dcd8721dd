"""The recipes of the shipped networks by name, for `emotion-models train NAME`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name

from models.run import Run

# Dotted names, so that PyTorch and other heavy modules are imported only for the recipe that runs.
RECIPES: dict[str, str] = {
    "face-cnn": "models.recipes.face_cnn:train_face_cnn",
    "video-lstm": "models.recipes.video_lstm:train_video_lstm",
    "visual": "models.recipes.visual:train_visual",
    "voice-lstm": "models.recipes.voice_lstm:train_voice_lstm",
    "report-face": "models.recipes.report_baselines:train_report_face",
    "report-voice": "models.recipes.report_baselines:train_report_voice",
    "eye-state": "models.recipes.eye_state:train_eye_state",
    "mouth-state": "models.recipes.mouth_state:train_mouth_state",
    "multimodal": "models.recipes.multimodal:train_multimodal",
}


def run_recipe(name: str, run: Run) -> Path:
    """Train one of `RECIPES`; return its card."""
    train: Callable[[Run], Path] = resolve_name(RECIPES[name])
    return train(run)
