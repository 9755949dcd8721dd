"""The package imports whole on a device that has no camera stack, no microphone library and no TensorFlow."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import edge

# Libraries of the training, and drivers that a device may lack.
ABSENT = ("tensorflow", "keras", "tf_keras", "torch", "matplotlib", "gi", "picamera2", "pyaudio")
IMPORT_ALL = """
import importlib, sys
sys.modules.update(dict.fromkeys({absent!r}))  # None: an import of them raises ImportError
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def test_every_module_imports_without_optional_libraries() -> None:
    """A library that a device may lack is imported only where it is used."""
    names = [module.name for module in pkgutil.walk_packages(edge.__path__, "edge.")]
    assert {"edge.daemon", "edge.sources.picamera", "edge.delivery.publisher"} < set(names)
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL.format(absent=ABSENT), *names],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
