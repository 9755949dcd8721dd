"""The report's systems, trained and tested as in the report, and tested again on unseen people."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edge.errors import ModelError
from edge.inference.weights import sha256
from edge.values import LABELS, Float32
from models.data.datasets import DataError
from models.data.report_examples import (
    LEAKS,
    RANDOM,
    TITLES,
    VGG16_FILE,
    Examples,
    Options,
    describe,
    mix_of,
    read_cfe,
    read_faces,
    read_mixed,
    read_tess,
)
from models.data.report_pictures import CKPLUS_LABELS, move_pictures
from models.data.splits import Fold, Index, random_split, split_notes, subject_folds
from models.metrics import Labels
from models.run import Run
from models.training.epochs import predict
from models.training.folds import Fit, Fitted, fit_fold, prepare_checkpoints

SEED = 2013


@dataclass(frozen=True, slots=True, eq=False)
class System:
    """One network with its test `inputs` (n, ...); `augmented` returns training inputs if they differ."""

    name: str
    build: Callable[[], Any]
    inputs: Float32
    augmented: Callable[[Index, np.random.Generator], Float32] | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """One experiment of the report: data, networks, training options, and the reported figure."""

    about: str
    read: Callable[[Run, Options], Examples]
    systems: Callable[[Examples, Options], list[System]]
    fit: Fit
    labels: tuple[str, ...] = LABELS
    people: Literal["leave-subjects-out", "leave-one-speaker-out"] = "leave-subjects-out"
    reported: tuple[float, str] | None = None
    side_px: int = 48
    takes_size: bool = False
    takes_weights: bool = False


def train_report(name: str, run: Run, options: Options) -> dict[str, Any]:
    """Train and test one of `REPORTS`; write result and plots into `run.out`; return the result.

    Checkpoints are in `NAME.state/`; `run.resume` continues from them. Raises `DataError` for a missing data
    set or class, `ModelError` for weights that are not VGG16's.
    """
    from models.recipes.report_results import plot_protocol, protocol_figures, save_result

    report = REPORTS[name]
    fit = report.fit if run.epochs is None else replace(report.fit, epochs=run.epochs)
    if options.weights is not None and not options.weights.is_file():
        raise ModelError(f"--weights {options.weights}: no such file; give {VGG16_FILE}")
    examples = report.read(run, options)
    missing = [label for k, label in enumerate(report.labels) if not np.any(examples.labels == k)]
    if missing:
        raise DataError(f"{mix_of(examples)}: no example of {', '.join(missing)}; complete the data set")
    protocols, notes = _protocols(report, examples)
    if fit.epochs != report.fit.epochs:
        notes.append(f"{fit.epochs} epochs instead of the report's {report.fit.epochs}")
    for note in notes:
        run.report(f"note: {note}")
    state = run.out / f"{name}.state"
    prepare_checkpoints(state, _identity(examples, fit, options), resume=run.resume)
    figures: dict[str, Any] = {}
    for system in report.systems(examples, options):
        for protocol, folds in protocols.items():
            key = f"{system.name}-{protocol}" if system.name else protocol
            fitted = [
                _fit(system, examples.labels, fold, number=number, fit=fit, state=state / key, run=run)
                for number, fold in enumerate(folds, start=1)
            ]
            tested = np.concatenate([fold.test for fold in folds])
            p, labels = np.concatenate([fold.p for fold in fitted]), examples.labels[tested]
            figures[key] = protocol_figures(
                p,
                labels,
                names=report.labels,
                subjects=[examples.subjects[i] for i in tested],
                sources=[examples.sources[i] for i in tested],
                counts=[len(fold.test) for fold in folds],
                histories=[fold.history for fold in fitted],
            )
            plot_protocol(p, labels, figures[key], stem=run.out / f"{name}.{key}", title=f"{name}, {key}")
    result = {
        "version": 1,
        "recipe": name,
        "data": describe(examples, report.labels),
        "labels": list(report.labels),
        "epochs": fit.epochs,
        "batch": fit.batch,
        "seed": fit.seed,
        "input_shape": list(examples.inputs.shape[1:]),
        "reported": report.reported
        and {"accuracy": report.reported[0], "data": report.reported[1], "protocol": RANDOM},
        "protocols": figures,
        "notes": notes,
    }
    save_result(result, run.out)
    return result


def _protocols(report: Report, examples: Examples) -> tuple[dict[str, list[Fold]], list[str]]:
    """Return folds of the random protocol and the one by people, and notes on leaks and missing classes."""
    notes = [*examples.notes, *(LEAKS[source] for source in dict.fromkeys(examples.sources))]
    splits: dict[str, Callable[[], list[Fold]]] = {
        RANDOM: lambda: random_split(examples.labels, seed=SEED),
        report.people: lambda: subject_folds(examples.labels, examples.subjects, seed=SEED),
    }
    protocols = {}
    for protocol, split in splits.items():
        try:
            protocols[protocol] = split()
        except DataError as error:
            notes.append(f"{protocol} not measured: {error}")
    if not protocols:
        raise DataError(f"{mix_of(examples)}: {'; '.join(notes)}")
    for protocol, folds in protocols.items():
        notes += split_notes(folds, examples.labels, report.labels, protocol=protocol)
    return protocols, notes


def _fit(
    system: System, labels: Labels, fold: Fold, *, number: int, fit: Fit, state: Path, run: Run
) -> Fitted:
    """Train fold `number`; examples and order of an epoch depend only on seed, fold and epoch."""

    def epoch_of(epoch: int) -> tuple[Float32, Labels]:
        random = np.random.default_rng([fit.seed, number, epoch])
        order = random.permutation(fold.train)
        x = system.augmented(order, random) if system.augmented else system.inputs[order]
        return x, labels[order]

    return fit_fold(
        system.build,
        epoch_of,
        system.inputs[fold.test],
        labels[fold.test],
        fit=fit,
        checkpoint=state.with_name(f"{state.name}.fold-{number}.npz"),
        report=run.report,
    )


def _grey_system(network: str) -> Callable[[Examples, Options], list[System]]:
    def systems(examples: Examples, _options: Options) -> list[System]:
        from models.recipes import report_networks as networks

        return [System("", getattr(networks, network), _unit(examples.inputs))]

    return systems


def _augmented_system(name: str, examples: Examples, options: Options) -> System:
    """Return the colour network, which trains on newly augmented images in every epoch."""
    from models.recipes import report_networks as networks

    pixels = examples.inputs.astype(np.uint8, copy=False)
    return System(
        name,
        lambda: networks.report_face_rgb(options.side_px),
        _unit(pixels),
        lambda index, random: _unit(move_pictures(pixels[index], random)),
    )


def _cfe_systems(examples: Examples, options: Options) -> list[System]:
    systems = [_augmented_system("cnn", examples, options)]
    if options.weights:
        systems.insert(0, _vgg16_system(examples, options.weights))
    return systems


def _vgg16_system(examples: Examples, weights: Path) -> System:
    """Run the frozen VGG16 once on all images, since only the head is trained."""
    import keras

    from models.recipes import report_networks as networks

    base = networks.vgg16_base(examples.inputs.shape[1])
    try:
        base.load_weights(weights)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"--weights {weights}: not VGG16's weights without top ({reason}); give {VGG16_FILE}"
        ) from None
    # RGB to BGR minus the means of ImageNet, as these weights need.
    images = keras.applications.vgg16.preprocess_input(examples.inputs.astype(np.float32))
    features = predict(base, images)  # (n, side / 32, side / 32, 512)
    return System("vgg16", lambda: networks.report_face_vgg_head(features.shape[1:]), features)


def _voice_systems(examples: Examples, _options: Options) -> list[System]:
    from models.recipes import report_networks as networks

    steps = np.asarray(examples.inputs[..., np.newaxis], dtype=np.float32)  # (n, 40) -> (n, 40, 1)
    return [System("", networks.report_voice, steps)]


def _unit(pixels: NDArray[Any]) -> Float32:
    return np.asarray(pixels / np.float32(255), dtype=np.float32)


def _identity(examples: Examples, fit: Fit, options: Options) -> dict[str, Any]:
    """Return what a resumed run must have in common with the original run."""
    data = hashlib.sha256(examples.inputs.tobytes())
    data.update(examples.labels.tobytes() + "\n".join(examples.subjects).encode())
    return {
        "epochs": fit.epochs,
        "seed": fit.seed,
        "input_shape": list(examples.inputs.shape[1:]),
        "data": data.hexdigest()[:16],
        "weights": sha256(options.weights) if options.weights else None,
    }


def _face_report(*, epochs: int, labels: tuple[str, ...], source: str, network: str) -> Report:
    return Report(
        about=f"the report on {TITLES[source]}",
        read=lambda run, options: read_faces(run, (source,), labels, side_px=options.side_px, colour=False),
        systems=_grey_system(network),
        fit=Fit(epochs=epochs, batch=32, loss="sparse_categorical_crossentropy", seed=SEED),
        labels=labels,
    )


REPORTS = {
    "report-face-jaffe": _face_report(epochs=20, labels=LABELS, source="jaffe", network="report_face_jaffe"),
    "report-face-ckplus": _face_report(
        epochs=10, labels=CKPLUS_LABELS, source="ckplus48", network="report_face_ckplus"
    ),
    "report-face-cfe": Report(
        about="the report on CFE, VGG16 and CNN",
        read=read_cfe,
        systems=_cfe_systems,
        fit=Fit(epochs=15, batch=32, loss="categorical_crossentropy", seed=SEED),
        takes_size=True,
        takes_weights=True,
    ),
    "report-face-mixed": Report(
        about="the report on its mixed set",
        read=read_mixed,
        systems=lambda examples, options: [_augmented_system("", examples, options)],
        fit=Fit(epochs=15, batch=32, loss="categorical_crossentropy", seed=SEED),
        reported=(0.6691, "JAFFE + CK+48 + CFE"),
        takes_size=True,
    ),
    "report-voice-tess": Report(
        about="the report on TESS",
        read=read_tess,
        systems=_voice_systems,
        fit=Fit(epochs=100, batch=512, loss="categorical_crossentropy", seed=SEED),
        people="leave-one-speaker-out",
        reported=(0.98, "TESS"),
    ),
}
