"""Reads the write-ahead log of a database after a crash: is it complete, and which pages does it have?

SQLite ignores everything behind the first damaged frame without a word: https://sqlite.org/walformat.html.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PAGE_BYTES = 4096  # SQLite's default, which every outbox has
HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24
FRAME_BYTES = FRAME_HEADER_BYTES + PAGE_BYTES
MAGIC = 0x377F0682  # the lowest bit is the byte order of the checksums
INDEX_HEADER = struct.Struct("=3I2BH2I2I8s2I")  # of `-shm`; there are two copies of it


@dataclass(frozen=True, slots=True)
class Frame:
    """One page of the log; `is_commit` where it ends a transaction, `is_valid` by its own checksum."""

    page: int
    is_commit: bool
    is_valid: bool
    content: bytes


def has_log(database: Path) -> bool:
    """Return whether there is a log with content; a clean close removes it, a kill leaves it."""
    try:
        return Path(f"{database}-wal").stat().st_size > HEADER_BYTES
    except FileNotFoundError:
        return False


def is_damaged(database: Path, *, same_boot: bool) -> bool:
    """Return whether transactions in the log were lost to damage.

    A frame that is cut off at the end is normal after a power loss. After a kill (`same_boot`) the index of
    the log (`-shm`) still has the number of committed frames, and each of them has to be valid. If the index
    is gone too, the log has to end with a whole transaction.
    """
    # The index is read first: a process that writes meanwhile completes the log before the index.
    index = _read(database, "-shm") if same_boot else b""
    log = _read(database, "-wal")
    if len(log) <= HEADER_BYTES:
        is_cut = same_boot and 0 < len(log) < HEADER_BYTES
        return is_cut or bool(_indexed_frames(index, None))  # the log is gone
    salt = log[16:24]
    committed, valid = _count_valid(log)
    indexed = _indexed_frames(index, salt)
    if indexed is not None:
        return indexed > committed
    if not valid and not _has_valid_header(log):
        return True
    ends_whole = valid == committed and (len(log) - HEADER_BYTES) % FRAME_BYTES == 0
    if same_boot and _indexed_frames(index, None) is None and not ends_whole:
        return True
    # Frames of the same salt behind an invalid one: SQLite would have continued there.
    first = valid if same_boot else valid + 1
    return any(header[8:16] == salt for header, _ in list(_frames(log))[first:])


def committed_frames(database: Path) -> list[Frame]:
    """Return the frames of the newest generation up to the last commit, damaged or not, in order."""
    log = _read(database, "-wal")
    found = list(_frames(log))
    has_header = _has_valid_header(log)
    salt = log[16:24] if has_header or not found else found[0][0][8:16]
    is_big = bool(log[3:4] and log[3] & 1) if has_header else False
    before = log[24:HEADER_BYTES]  # the checksum that the one of the next frame continues
    frames = []
    for header, content in found:
        if header[8:16] == salt:
            sums = _checksum(header[:8] + content, _pair(before), is_big=is_big)
            page, is_valid = int.from_bytes(header[:4], "big"), sums == _pair(header[16:])
            frames.append(Frame(page, header[4:8] != bytes(4), is_valid, content))
        before = header[16:]
    while frames and not frames[-1].is_commit:
        frames.pop()
    return frames


def _read(database: Path, suffix: str) -> bytes:
    try:
        return Path(f"{database}{suffix}").read_bytes()
    except FileNotFoundError:
        return b""


def _frames(log: bytes) -> Iterator[tuple[bytes, bytes]]:
    for start in range(HEADER_BYTES, len(log) - FRAME_BYTES + 1, FRAME_BYTES):
        yield log[start : start + FRAME_HEADER_BYTES], log[start + FRAME_HEADER_BYTES : start + FRAME_BYTES]


def _has_valid_header(log: bytes) -> bool:
    if len(log) < HEADER_BYTES:
        return False
    magic, _version, page_bytes, _checkpoint = struct.unpack_from(">4I", log)
    return (
        magic & ~1 == MAGIC
        and page_bytes == PAGE_BYTES
        and _checksum(log[:24], (0, 0), is_big=bool(magic & 1)) == struct.unpack_from(">2I", log, 24)
    )


def _count_valid(log: bytes) -> tuple[int, int]:
    """Return the number of frames up to the last valid commit, and of all valid frames."""
    if not _has_valid_header(log):
        return 0, 0
    is_big = bool(log[3] & 1)
    sums: tuple[int, int] = struct.unpack_from(">2I", log, 24)
    committed = valid = 0
    for header, content in _frames(log):
        sums = _checksum(header[:8] + content, sums, is_big=is_big)
        if header[8:16] != log[16:24] or sums != struct.unpack_from(">2I", header, 16):
            break
        valid += 1
        if header[4:8] != bytes(4):
            committed = valid
    return committed, valid


def _pair(raw: bytes) -> tuple[int, int]:
    return int.from_bytes(raw[:4], "big"), int.from_bytes(raw[4:8], "big")


def _checksum(content: bytes, sums: tuple[int, int], *, is_big: bool) -> tuple[int, int]:
    words = struct.unpack(f"{'>' if is_big else '<'}{len(content) // 4}I", content)
    first, second = sums
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second


def _indexed_frames(index: bytes, salt: bytes | None) -> int | None:
    """Return the number of committed frames in the index; None where it is not of the log with this salt."""
    size = INDEX_HEADER.size
    if len(index) < 2 * size or index[:size] != index[size : 2 * size]:
        return None
    fields = INDEX_HEADER.unpack_from(index)
    sums = _checksum(index[: size - 8], (0, 0), is_big=False)
    if not fields[3] or fields[10] != (salt or fields[10]) or sums != fields[11:13]:
        return None
    return int(fields[6])
