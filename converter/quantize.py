"""Turns a Keras file into a TFLite file, in a child process whose crash is only one sentence here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.errors import EdgeError, ModelError
from edge.values import Float32

KINDS = ("float32", "float16", "dynamic", "int8")

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Job:
    """One conversion: `source` to `target`; int8 also needs examples to calibrate with."""

    source: Path
    target: Path
    kind: str
    calibrate: Path | None = None
    count: int = 200
    features: dict[str, Any] | None = None


def convert(job: Job, *, report: Report) -> None:
    """Convert in a child process and give the finished file its name; on any failure nothing is left.

    Raises the child's error as `ModelError` or `EdgeError`, one sentence, a native crash included.
    """
    check(job)
    try:
        job.target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=job.target.parent, prefix=".convert-") as scratch:
            part = Path(scratch) / job.target.name
            _run_child(job, part, report)
            part.replace(job.target)
    except OSError as error:
        raise EdgeError(
            f"{job.target}: cannot be written ({error.strerror}); check space and permissions"
        ) from None


def check(job: Job) -> None:
    """Raise before anything slow is started: a kind, a file or a directory that is not there."""
    if job.kind not in KINDS:
        raise EdgeError(f"--to {job.kind}: unknown; use one of {', '.join(KINDS)}")
    if not job.source.is_file():
        raise ModelError(f"{job.source}: no such Keras file; `emotion-models train` makes one")
    if not zipfile.is_zipfile(job.source):
        raise ModelError(f"{job.source}: not a .keras file; save the model again with model.save('x.keras')")
    if job.kind == "int8" and job.calibrate is None:
        raise EdgeError("--to int8 needs --calibrate DIR, a directory with a hundred or more examples")


def _run_child(job: Job, part: Path, report: Report) -> None:
    message = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(job).items()}
    message["target"] = str(part)
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    with (
        tempfile.TemporaryFile(mode="w+", encoding="utf-8", errors="replace") as complaints,
        subprocess.Popen(
            [sys.executable, "-m", "converter.quantize"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            env=environment,
        ) as child,
    ):
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(json.dumps(message))
            child.stdin.close()
            failure = None
            for line in child.stdout:
                said = _parse(line)
                if "step" in said:
                    report(said["step"])
                failure = said if "error" in said else failure
            code = child.wait()
        except BaseException:
            child.kill()  # Ctrl-C: the child must not go on writing
            raise
        if failure is not None:
            raise (ModelError if failure["model"] else EdgeError)(failure["error"])
        if code or not part.is_file():
            complaints.seek(0)
            raise ModelError(
                f"{job.source}: {_crash(code, complaints.read())}; try --to float32, or simplify it"
            )


def _parse(line: str) -> dict[str, Any]:
    """Read one line of the child; TensorFlow prints lines of its own, which say nothing to us."""
    try:
        said = json.loads(line)
    except json.JSONDecodeError:
        return {}
    return said if isinstance(said, dict) else {}


def _crash(code: int, complaints: str) -> str:
    if code < 0:
        return f"TensorFlow crashed while converting ({signal.Signals(-code).name})"
    lines = [line for line in complaints.splitlines() if line.strip()]
    return f"the conversion failed ({lines[-1].strip()[:200] if lines else f'exit code {code}'})"


def _child() -> int:
    """Do the job that stands on stdin; say steps and the one error as JSON lines on stdout."""
    message = json.loads(sys.stdin.read())
    job = Job(
        source=Path(message["source"]),
        target=Path(message["target"]),
        kind=message["kind"],
        calibrate=Path(message["calibrate"]) if message["calibrate"] else None,
        count=message["count"],
        features=message["features"],
    )
    try:
        job.target.write_bytes(_convert_here(job, lambda text: print(json.dumps({"step": text}), flush=True)))
    except EdgeError as error:
        print(json.dumps({"error": str(error), "model": isinstance(error, ModelError)}), flush=True)
        return error.exit_code
    return 0


def _convert_here(job: Job, report: Report) -> bytes:
    from converter.calibrate import read_examples

    try:
        import tensorflow as tf
    except ImportError as error:
        raise EdgeError(f"{error.name}: not installed; `pip install 'emotion-edge[train]'`") from None
    report("reading the model")
    model = read_model(job.source)
    examples = None
    if job.kind == "int8":
        assert job.calibrate is not None
        report("reading calibration examples")
        examples = read_examples(
            job.calibrate, model.inputs[0].shape[1:], count=job.count, features=job.features
        )
        report(f"calibrating with {len(examples)} examples")
    with tempfile.TemporaryDirectory(prefix="emotion-edge-") as scratch:
        _export(tf, model, scratch)
        report(f"converting to {job.kind}")
        converter = tf.lite.TFLiteConverter.from_saved_model(scratch)
        _set_kind(tf, converter, job.kind, examples)
        try:
            return bytes(converter.convert())
        except Exception as error:  # the converter raises whatever its passes raise
            reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
            raise ModelError(
                f"{job.source}: cannot be converted to {job.kind} ({reason}); simplify it"
            ) from error


def read_model(source: Path) -> Any:
    """Load a model and rewrite its LSTMs; raise `ModelError` for what cannot become one TFLite file."""
    import keras

    from converter.lstm import unroll

    try:
        model = keras.models.load_model(source, compile=False)
    except Exception as error:  # Keras raises anything from KeyError to zipfile.BadZipFile here
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"{source}: not a Keras model that loads here ({reason}); save it as .keras"
        ) from error
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ModelError(
            f"{source}: {len(model.inputs)} inputs and {len(model.outputs)} outputs; one of each is supported"
        )
    if None in model.inputs[0].shape[1:]:
        raise ModelError(
            f"{source}: input shape {model.inputs[0].shape[1:]} is not fixed; give every side a size"
        )
    if any(not np.all(np.isfinite(weight)) for weight in model.get_weights()):
        raise ModelError(f"{source}: a weight is not a number; train it again with a lower learning rate")
    return unroll(model)


def _export(tf: Any, model: Any, directory: str) -> None:
    """Write a SavedModel of batch 1: straight from Keras 3, variables would stay unfrozen and fail to run."""
    from keras.export import ExportArchive

    shape = (1, *model.inputs[0].shape[1:])
    archive = ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        "serve", lambda x: model(x, training=False), input_signature=[tf.TensorSpec(shape, tf.float32)]
    )
    archive.write_out(directory, verbose=False)


def _set_kind(tf: Any, converter: Any, kind: str, examples: Float32 | None) -> None:
    if kind != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if examples is not None:

        def represent() -> Iterator[list[Float32]]:
            for example in examples:
                yield [example[np.newaxis]]

        converter.representative_dataset = represent
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.int8
        converter.inference_output_type = tf.int8


if __name__ == "__main__":
    sys.exit(_child())
