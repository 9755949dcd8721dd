"""Deals people into folds, the same at every call and on every machine."""

from __future__ import annotations

import zlib


def fold_of(person: str, folds: int) -> int:
    """Return the fold 0..folds-1 in which `person` (such as `ckplus:S055`) is held out."""
    return zlib.crc32(person.encode()) % folds
