"""Opens the models that the configuration names; the daemon, `analyze`, `bench` and `doctor` all use it.

A name is looked up in `models.directory` first and then in the package. A path is a card, with the files of
the model beside it.
"""

from __future__ import annotations

from pathlib import Path

from edge.errors import ModelError
from edge.inference.card import TASK_KEYS, Card, Task, artifacts_directory, load_card
from edge.inference.classifier import TfliteClassifier, open_classifier
from edge.masking import shortened
from edge.settings import Config, ModelSettings, is_card_path

NONE = "none"  # in place of a name: run without that model


def open_model(config: Config, task: Task, backend: str = "cpu") -> TfliteClassifier:
    """Open the configured model of `task` on `backend` after all checks of `open_classifier`."""
    path = find_card(config.models, task)
    return open_classifier(
        path.stem, task=task, directory=path.parent, backend=backend, threads=config.inference.threads
    )


def open_optional_model(config: Config, task: Task) -> TfliteClassifier | None:
    """Open the configured model of `task` on the CPU; None where the configuration has `none`.

    The models that may be `none` run faster on the CPU than the transfer to an accelerator takes.
    """
    return None if model_name(config.models, task) == NONE else open_model(config, task)


def find_card(settings: ModelSettings, task: Task) -> Path:
    """Return the path of the card of the configured model; raise `ModelError` where there is none."""
    name = model_name(settings, task)
    try:
        return _find_card(settings, task, name)
    except OSError as error:  # a name that is too long, a directory without permission
        raise ModelError(
            f"{TASK_KEYS[task]} {shortened(name)}: cannot be read ({error.strerror}); check path and "
            "permissions"
        ) from None


def _find_card(settings: ModelSettings, task: Task, name: str) -> Path:
    if is_card_path(name):
        path = Path(name)
        if path.suffix != ".json":
            raise ModelError(
                f"{TASK_KEYS[task]} {shortened(name)}: not a model card; give the path of its NAME.json"
            )
        if not path.is_file():
            raise ModelError(f"{TASK_KEYS[task]} {shortened(name)}: no such model card; check the path")
        return path
    own = settings.directory
    if own is not None and not own.is_dir():
        raise ModelError(f"models.directory {shortened(str(own))}: no such directory; check the path")
    for directory in (own, artifacts_directory()):
        if directory is not None and (path := directory / f"{name}.json").is_file():
            return path
    name = shortened(name)
    places = "the package" if own is None else f"{shortened(str(own))} or the package"
    raise ModelError(
        f"{TASK_KEYS[task]} {name}: no {name}.json in {places}; `emotion-models list` shows the models of "
        "the package, for your own set models.directory or give the path of its card"
    )


def load_configured_card(config: Config, task: Task) -> Card:
    """Read the card of the configured model of `task` without opening the model."""
    path = find_card(config.models, task)
    return load_card(path.stem, directory=path.parent)


def model_name(settings: ModelSettings, task: Task) -> str:
    """Return the configured name or path; the network of `fusion.visual` has a fixed name."""
    if task == "visual":
        return "visual"
    return str(getattr(settings, TASK_KEYS[task].removeprefix("models.")))
