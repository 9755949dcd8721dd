"""Converts one model, in the child process that `converter.jobs` starts; reports its stages on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from converter.jobs import INTEGERS, Job, Stage
from converter.memory import limited_memory
from converter.source import first_line, is_out_of_memory, read_model, read_saved_model, source_kind
from converter.tensor_names import tidy_names
from edge.errors import EdgeError, ModelError
from edge.values import Float32

STREAM_STEPS = 2000  # steps to calibrate a single-step model with

Report = Callable[[Stage], None]
Example = dict[str, Float32]


def main() -> int:
    """Read a job from stdin, run it, and print stages or an error as JSON lines on stdout."""
    job = TypeAdapter(Job).validate_json(sys.stdin.read())

    def report(stage: Stage) -> None:
        print(json.dumps({"stage": stage.text, "done": stage.done}), flush=True)

    try:
        with limited_memory(job.source):
            content = convert_here(job, report)
        report(Stage("writing", 0.98))
        job.target.write_bytes(content)
    except EdgeError as error:
        print(json.dumps({"error": str(error), "model": isinstance(error, ModelError)}), flush=True)
        return error.exit_code
    except OSError as error:
        directory = job.target.parent.parent  # the scratch directory is removed before the message is printed
        text = f"{directory}: cannot be written to ({error.strerror}); free some space"
        print(json.dumps({"error": text, "model": False}), flush=True)
        return 1
    return 0


def convert_here(job: Job, report: Report) -> bytes:
    """Convert in this process and return the TFLite file; the directory of the target is used as scratch."""
    try:
        import tensorflow as tf
    except ImportError as error:
        raise EdgeError(f"{error.name}: not installed; in a clone, type `pip install '.[train]'`") from None
    scratch = job.target.parent  # created for this job; `converter.jobs.convert` removes it
    exported = scratch / "saved_model"
    is_integer = job.kind in INTEGERS
    report(Stage("reading the model", 0.1))
    if source_kind(job.source) == "saved_model":
        if job.recurrent is not None:
            raise ModelError(
                f"{job.source}: a SavedModel has no layers to rewrite; give the .keras file, or leave "
                "--recurrent out"
            )
        shape = read_saved_model(job.source, exported, is_integer=is_integer)
        examples = _examples(job, shape, report) if is_integer else None
        return _to_tflite(tf, job, exported, _single_inputs(examples), report)
    model = read_model(job.source, scratch)
    shape = tuple(model.inputs[0].shape[1:])
    if job.recurrent == "step":
        return _convert_step(tf, job, model, exported, report)
    model = _rewritten(model, job, report)
    examples = _examples(job, shape, report) if is_integer else None
    report(Stage("exporting the graph", 0.35))
    _export(tf, model, exported)
    return _to_tflite(tf, job, exported, _single_inputs(examples), report)


def _rewritten(model: Any, job: Job, report: Report) -> Any:
    """Return the model without loops, in the form that the job names: by default unrolled, fused if long."""
    from converter.fused import fuse
    from converter.recurrent import MAX_STEPS, recurrent_layers, step_count, unroll

    found = recurrent_layers(model)
    if not found:
        return model
    longest = max(step_count(layer) for layer in found)
    if job.recurrent == "fused" or (job.recurrent is None and longest > MAX_STEPS):
        report(Stage(f"recurrent layers: fused, {longest} steps", 0.2))
        return fuse(model)
    report(Stage(f"recurrent layers: unrolled, {longest} steps", 0.2))
    return unroll(model, exact_masks=job.kind not in INTEGERS)


def _convert_step(tf: Any, job: Job, model: Any, exported: Path, report: Report) -> bytes:
    from converter.streaming import stream

    report(Stage("recurrent layers: one step, states in and out", 0.2))
    streamed = stream(model)
    feed = None
    if job.kind in INTEGERS:
        if streamed.has_mean:
            raise ModelError(
                f"{job.source}: the step count of a running mean exceeds an integer range; use --to dynamic"
            )
        examples = _examples(job, tuple(model.inputs[0].shape[1:]), report)
        feed = _record_steps(tf, streamed.model, examples).__iter__
    report(Stage("exporting the graph", 0.35))
    _export(tf, streamed.model, exported, streamed.states)
    return _to_tflite(tf, job, exported, feed, report)


def _examples(job: Job, shape: tuple[int, ...], report: Report) -> Float32:
    from converter.calibration import read_examples

    assert job.calibrate is not None
    report(Stage("reading calibration examples", 0.2))

    def progress(done: int, total: int) -> None:
        report(Stage("reading calibration examples", 0.2 + 0.15 * done / total))

    return read_examples(job.calibrate, shape, count=job.count, features=job.features, progress=progress)


def _single_inputs(examples: Float32 | None) -> Callable[[], Iterable[Example]] | None:
    """Return a function that yields the examples one by one for the only input."""
    if examples is None:
        return None
    return lambda: ({"input": example[np.newaxis]} for example in examples)


def _record_steps(tf: Any, model: Any, examples: Float32) -> list[Example]:
    """Run a single-step model over whole windows; return the inputs of every step, states included."""
    run = tf.function(lambda *inputs: model(list(inputs), training=False))
    names = [state.name for state in model.inputs]
    recorded: list[Example] = []
    for example in examples[: max(2, STREAM_STEPS // examples.shape[1])]:
        states = [np.zeros(state.shape, np.float32) for state in model.inputs[1:]]
        for step in example:
            inputs = [step[np.newaxis, np.newaxis], *states]  # (features) -> (1, 1, features)
            recorded.append(dict(zip(names, inputs, strict=True)))
            states = [state.numpy() for state in run(*map(tf.constant, inputs))[1:]]
    return recorded


def _export(tf: Any, model: Any, directory: Path, states: tuple[str, ...] = ()) -> None:
    """Write a SavedModel of batch 1; without it Keras 3 leaves variables unfrozen and the file fails."""
    from keras.export import ExportArchive

    names = ("input", *states)
    spec = {
        name: tf.TensorSpec((1, *x.shape[1:]), tf.float32, name=name)
        for name, x in zip(names, model.inputs, strict=True)
    }

    def run(tensors: dict[str, Any]) -> dict[str, Any]:
        inputs = [tensors[name] for name in names]
        outputs = model(inputs if states else inputs[0], training=False)
        return dict(zip(("output", *states), outputs if states else [outputs], strict=True))

    archive = ExportArchive()
    archive.track(model)
    archive.add_endpoint("serve", run, input_signature=[spec])
    archive.write_out(str(directory), verbose=False)


def _to_tflite(
    tf: Any, job: Job, exported: Path, feed: Callable[[], Iterable[Example]] | None, report: Report
) -> bytes:
    converter = tf.lite.TFLiteConverter.from_saved_model(str(exported))
    _set_kind(tf, converter, job)
    count = 0
    if feed is not None:
        count = sum(1 for _ in feed())

        def represent() -> Iterator[Example]:
            for i, example in enumerate(feed()):
                report(Stage(f"calibrating with {count} examples", 0.5 + 0.3 * i / count))
                yield example

        converter.representative_dataset = represent
    report(Stage(f"converting to {job.kind}", 0.4))
    try:
        if job.ranges == "percentile":
            return tidy_names(_with_percentiles(converter, feed, report))
        return tidy_names(bytes(converter.convert()))
    except Exception as error:  # the converter passes on every exception of its passes
        reason = "too little memory for its layers" if is_out_of_memory(error) else first_line(error)
        raise ModelError(
            f"{job.source}: cannot be converted to {job.kind} ({reason}); simplify it"
        ) from error


def _set_kind(tf: Any, converter: Any, job: Job) -> None:
    """Set the converter's options; its default is one scale per channel for weights."""
    if job.kind != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if job.kind == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if job.kind in INTEGERS:
        sets = tf.lite.OpsSet
        narrow = sets.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        converter.target_spec.supported_ops = [narrow if job.kind == "int16x8" else sets.TFLITE_BUILTINS_INT8]
        if job.io != "float":
            integer = tf.int16 if job.kind == "int16x8" else tf.int8
            converter.inference_input_type = converter.inference_output_type = integer


def _with_percentiles(converter: Any, feed: Any, report: Report) -> bytes:
    """Calibrate, narrow the ranges, quantize: the two halves of the converter with `clip_ranges` between."""
    from tensorflow.lite.python.convert import mlir_quantize

    from converter.ranges import clip_ranges

    converter._experimental_calibrate_only = True
    calibrated = bytes(converter.convert())
    report(Stage("narrowing the ranges", 0.8))
    clipped = clip_ranges(calibrated, feed)
    return bytes(
        mlir_quantize(
            clipped,
            input_data_type=converter.inference_input_type,
            output_data_type=converter.inference_output_type,
        )
    )


if __name__ == "__main__":
    sys.exit(main())
