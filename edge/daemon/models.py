"""The models that the daemon runs, opened at start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from edge.inference.fallback import FallbackClassifier
from edge.inference.models import open_model
from edge.people.pooling import Pool, open_pool
from edge.pipeline import FacePipeline, VoicePipeline, open_face_pipeline, open_voice_pipeline
from edge.settings import Config

TASKS: tuple[Literal["face", "voice"], ...] = ("face", "voice")


@dataclass(frozen=True, slots=True, eq=False)
class DaemonModels:
    """Both pipelines, their classifiers by task, which may change the backend, and the fusion of both."""

    classifiers: Mapping[str, FallbackClassifier]
    faces: FacePipeline
    voices: VoicePipeline
    pool: Pool


def open_daemon_models(config: Config) -> DaemonModels:
    """Open all models on the CPU; raise `ModelError` for one that cannot be used."""
    classifiers: dict[str, FallbackClassifier] = {
        task: FallbackClassifier(partial(open_model, config, task), config.inference.backend)
        for task in TASKS
    }
    return DaemonModels(
        classifiers,
        open_face_pipeline(config, classifiers["face"]),
        open_voice_pipeline(config, classifiers["voice"]),
        open_pool(config),
    )
