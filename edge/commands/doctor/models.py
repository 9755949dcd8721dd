"""Checks the detector weights, then each model by its golden vector on each backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from edge.commands.doctor.finding import Finding, failed
from edge.errors import DeviceError, ModelError
from edge.face.combination import open_combiner
from edge.inference.backends import candidate_backends
from edge.inference.card import Task
from edge.inference.models import load_configured_card, open_model, open_optional_model
from edge.inference.weights import DETECTOR, LANDMARKS, find_weights
from edge.people.pooling import open_pool, pool_name
from edge.settings import Config


def check_weights() -> Iterator[Finding]:
    """Check the files of the face detector and of the landmark model by their SHA-256."""
    for name in (DETECTOR, LANDMARKS):
        try:
            file = find_weights(name)
        except ModelError as error:
            yield failed("weights", name, error)
            continue
        if file is None:
            detail = "missing: using the Haar cascade, which misses many faces"
            yield Finding("weights", name, "failed", detail, "`emotion-models fetch`")
        else:
            yield Finding("weights", name, "ok", str(file.parent))


def check_models(config: Config) -> Iterator[Finding]:
    """Check the small models on the CPU, then the face and voice models on the CPU and on each backend."""
    yield from check_small_models(config)
    wanted = config.inference.backend
    backends = dict.fromkeys(("cpu", *(candidate_backends() if wanted == "auto" else (wanted,))))
    for backend in backends:
        for task in ("face", "voice"):
            subject = f"{task} on {backend}"
            try:
                classifier = open_model(config, task, backend)
            except DeviceError as error:
                # `auto` skips a backend that does not work; a backend that the config names must work.
                finding = failed("models", subject, error)
                yield finding if wanted == backend else Finding("models", subject, "skipped", str(error))
            except ModelError as error:
                yield failed("models", subject, error)
            else:
                yield _passed(subject, classifier.name)


def check_small_models(config: Config) -> Iterator[Finding]:
    """Check the models that always run on the CPU: eyes, mouth, video and fusion."""
    for task, name_of in _small_models(config).items():
        subject = f"{task} on cpu"
        try:
            name = name_of()
        except ModelError as error:
            yield failed("models", subject, error)
            continue
        if name is None:
            yield Finding("models", subject, "skipped", "not used by this config")
        else:
            yield _passed(subject, name)


def _small_models(config: Config) -> dict[str, Callable[[], str | None]]:
    """Return by task what opens the model and returns its name, None if the config uses none."""

    def name_of_measurement(task: Task) -> str | None:
        classifier = open_optional_model(config, task)
        return None if classifier is None else classifier.name

    def name_of_video() -> str | None:
        combiner = open_combiner(config, load_configured_card(config, "face"))
        return None if combiner is None else combiner.video.name

    return {
        "eyes": partial(name_of_measurement, "eyes"),
        "mouth": partial(name_of_measurement, "mouth"),
        "video": name_of_video,
        "fusion": lambda: pool_name(open_pool(config)),
    }


def _passed(subject: str, name: str) -> Finding:
    return Finding("models", subject, "ok", f"{name}, golden vector matches")
