"""Damages bytes as disks, networks and attackers do."""

from __future__ import annotations

from random import Random

SPECIAL = (0, 1, 0x7F, 0x80, 0xFE, 0xFF)


def damage(data: bytes, random: Random) -> bytes:
    """Return `data` after one to eight changes."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 4, 8))):
        at, size = random.randrange(len(changed) + 1), random.choice((1, 2, 4, 16, 256))
        match random.randrange(7):
            case 0:
                changed[at : at + 1] = bytes([random.randrange(256)])
            case 1 if at < len(changed):
                changed[at] ^= 1 << random.randrange(8)
            case 2:
                changed[at : at + size] = bytes([random.choice(SPECIAL)]) * size
            case 3:
                del changed[at : at + size]
            case 4:
                changed[at:at] = random.randbytes(size)
            case 5:
                changed[at:at] = changed[at : at + size]
            case _ if random.random() < 0.3:
                del changed[at:]
    return bytes(changed)
