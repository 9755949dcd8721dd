"""Writes artifacts atomically; a failed write becomes one `EdgeError` with path and remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge.errors import EdgeError

REMEDY = "choose another directory"


@contextmanager
def writable(path: Path, *, remedy: str = REMEDY) -> Iterator[None]:
    """Create the directory of `path`; turn an `OSError` of the block into an `EdgeError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise EdgeError(f"{path}: cannot be written ({error.strerror}); {remedy}") from error


@contextmanager
def replaced(path: Path, *, remedy: str = REMEDY) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which replaces `path` when the block succeeds.

    The temporary path has the same suffix, since Keras and NumPy choose the format by it.
    """
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    with writable(path, remedy=remedy):
        try:
            yield part
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
