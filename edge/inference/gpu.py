"""The GPU: LiteRT's CompiledModel (WebGPU over Vulkan), for float16 and float32 files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import DeviceError
from edge.inference.interpreter import InterpreterEngine
from edge.inference.tensors import Model, TensorInfo, first_line
from edge.native_output import ALL_NATIVE, held_output
from edge.sources.devices import forbidden_gpus


class GpuEngine:
    """A file compiled for the GPU, with one buffer for each tensor."""

    def __init__(self, path: Path, infos: tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]) -> None:
        from ai_edge_litert.compiled_model import CompiledModel
        from ai_edge_litert.hardware_accelerator import HardwareAccelerator

        self.inputs, self.outputs = infos
        self._model = CompiledModel.from_file(str(path), hardware_accel=HardwareAccelerator.GPU)
        self._feeds = self._model.create_input_buffers(0)
        self._results = self._model.create_output_buffers(0)

    def invoke(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Run once; `RuntimeError` or `ValueError` when the backend cannot."""
        for buffer, values in zip(self._feeds, arrays, strict=True):
            buffer.write(values)
        self._model.run_by_index(0, self._feeds, self._results)
        return [
            buffer.read(int(np.prod(info.shape)), info.dtype.type).reshape(info.shape)
            for buffer, info in zip(self._results, self.outputs, strict=True)
        ]


def open_gpu(path: Path, *, threads: int) -> Model:
    """Open a file on the GPU and run it once; raise `DeviceError` where that fails.

    Only a run shows an unsupported operation: the driver reports it on stderr, without an exception.
    """
    cpu = InterpreterEngine(path, threads=threads)  # for the scales, which the compiled model does not have
    try:
        with held_output(ALL_NATIVE) as output:
            engine = GpuEngine(path, (cpu.inputs, cpu.outputs))
            engine.invoke([np.zeros(info.shape, info.dtype) for info in cpu.inputs])
    except ImportError as error:
        raise DeviceError(
            f"inference.backend gpu: {first_line(error)}; `pip install 'ai-edge-litert>=2'`, or use cpu",
            reason="abi_mismatch",
        ) from error
    except (RuntimeError, ValueError) as error:
        raise _refusal(path, b"".join(output)) from error
    if refused := next((line for line in output if b"Validation error" in line), b""):
        detail = refused.decode(errors="replace").partition("Validation error: ")[2].strip()[:120]
        raise DeviceError(
            f"inference.backend gpu: cannot run {path.name} ({detail}); use cpu", reason="op_unsupported"
        )
    return Model(engine, backend="gpu")


def _refusal(path: Path, output: bytes) -> DeviceError:
    if b"No adapters found" not in output and b"WebGPU environment" not in output:
        return DeviceError(
            f"inference.backend gpu: the GPU does not support every operation of {path.name}; use cpu",
            reason="op_unsupported",
        )
    if nodes := forbidden_gpus():
        return DeviceError(
            f"inference.backend gpu: {nodes[0]} is not permitted; "
            "`sudo usermod -aG render $USER` and log in again",
            reason="no_permission",
        )
    return DeviceError(
        "inference.backend gpu: Vulkan has no GPU here; "
        "`sudo apt install libvulkan1 mesa-vulkan-drivers`, or use cpu"
    )
