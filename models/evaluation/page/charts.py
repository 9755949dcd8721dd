"""Draws the charts of an evaluation as inline SVG without scripts, fonts or requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from edge.values import LABELS

# Colours are CSS variables of the page, so that charts follow its dark mode.
MAIN, SECOND, GOOD, BAD, FAINT = "var(--main)", "var(--second)", "var(--good)", "var(--bad)", "var(--line)"
ROW_PX = 30
NAME_PX = 200
CELL_PX = 44


@dataclass(frozen=True, slots=True)
class Mark:
    """One row of an interval chart: accuracy and UAR (0..1) with 95 % intervals, and the target."""

    name: str
    accuracy: float
    accuracy_95: Sequence[float]
    uar: float
    uar_95: Sequence[float]
    wanted: float | None = None


def interval_chart(marks: Sequence[Mark]) -> str:
    """Draw accuracy (full dot) and UAR (hollow dot) of each set over 0..100 %, each with its interval."""
    width, scale_px = 760, 520
    height = ROW_PX * len(marks) + 34

    def x(share: float) -> float:
        return NAME_PX + scale_px * share

    parts = []
    for tenth in range(0, 11, 2):
        at = x(tenth / 10)
        parts.append(_line(at, 4, at, height - 26, FAINT))
        parts.append(_text(at, height - 10, f"{10 * tenth} %", anchor="middle", size=11))
    chance = x(1 / len(LABELS))
    parts.append(_line(chance, 4, chance, height - 26, "var(--faint)", dash="2 4"))
    for row, mark in enumerate(marks):
        y = ROW_PX * row + 18
        parts.append(_text(NAME_PX - 12, y + 4, mark.name, anchor="end"))
        for value, bounds, dy, colour, fill in (
            (mark.accuracy, mark.accuracy_95, -5, MAIN, MAIN),
            (mark.uar, mark.uar_95, 5, SECOND, "var(--card)"),
        ):
            parts.append(_line(x(bounds[0]), y + dy, x(bounds[1]), y + dy, colour, width=2))
            parts.append(
                f'<circle cx="{x(value):.1f}" cy="{y + dy}" r="4" fill="{fill}" stroke="{colour}" '
                f'stroke-width="2"><title>{escape(mark.name)}: {100 * value:.1f} %</title></circle>'
            )
        if mark.wanted is not None:
            parts.append(_line(x(mark.wanted), y - 13, x(mark.wanted), y + 13, GOOD, width=2.5))
    return _svg(width, height, parts, "accuracy and UAR with 95 % intervals")


def confusion_chart(matrix: Sequence[Sequence[int]]) -> str:
    """Draw counts (7, 7), rows true, columns predicted; the shade is the share of the row."""
    left, top, count = 84, 62, len(LABELS)
    parts = [_text(left + count * CELL_PX / 2, 12, "predicted", anchor="middle", size=11)]
    for k, label in enumerate(LABELS):
        middle = CELL_PX * k + CELL_PX / 2
        turned = f'transform="rotate(-40 {left + middle:.0f} {top - 8})"'
        parts.append(_text(left + middle, top - 8, label, size=11, extra=turned))
        parts.append(_text(left - 8, top + middle + 4, label, anchor="end", size=11))
    for i, row in enumerate(matrix):
        total = sum(row)
        for j, value in enumerate(row):
            share = value / total if total else 0.0
            x, y = left + CELL_PX * j, top + CELL_PX * i
            colour = GOOD if i == j else BAD
            parts.append(
                f'<rect x="{x}" y="{y}" width="{CELL_PX - 2}" height="{CELL_PX - 2}" rx="4" fill="{colour}" '
                f'fill-opacity="{0.06 + 0.8 * share if total else 0.02:.3f}"><title>{LABELS[i]} predicted as '
                f"{LABELS[j]}: {value} ({100 * share:.0f} %)</title></rect>"
            )
            if value:
                parts.append(_text(x + CELL_PX / 2 - 1, y + 26, str(value), anchor="middle", size=12))
    return _svg(left + CELL_PX * count + 40, top + CELL_PX * count + 6, parts, "confusion matrix")


def reliability_chart(bins: Sequence[dict[str, Any]]) -> str:
    """Draw accuracy over confidence; the dashed line is perfect calibration."""
    left, side = 44, 260
    most = max(b["n"] for b in bins)
    parts = [_line(left, side + 8, left + side, 8, "var(--faint)", dash="5 4")]
    for fifth in range(6):
        at = side * fifth / 5
        parts.append(_line(left + at, 8, left + at, side + 8, FAINT))
        parts.append(_line(left, 8 + at, left + side, 8 + at, FAINT))
        parts.append(_text(left + at, side + 24, f"{20 * fifth}", anchor="middle", size=11))
        parts.append(_text(left - 6, side + 12 - at, f"{20 * fifth}", anchor="end", size=11))
    path = " ".join(f"{left + side * b['confidence']:.1f},{8 + side * (1 - b['accuracy']):.1f}" for b in bins)
    parts.append(f'<polyline points="{path}" fill="none" stroke="{MAIN}" stroke-width="1.5"/>')
    for b in bins:
        x, y = left + side * b["confidence"], 8 + side * (1 - b["accuracy"])
        tooltip = (
            f"{b['n']} examples: confidence {100 * b['confidence']:.0f} %, "
            f"accuracy {100 * b['accuracy']:.0f} %"
        )
        radius = 2.5 + 7 * (b["n"] / most) ** 0.5
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{MAIN}" fill-opacity="0.55">'
            f"<title>{tooltip}</title></circle>"
        )
    parts.append(_text(left + side / 2, side + 42, "confidence %", anchor="middle", size=11))
    turned = f'transform="rotate(-90 12 {8 + side / 2})"'
    parts.append(_text(12, 8 + side / 2, "accuracy %", anchor="middle", size=11, extra=turned))
    return _svg(left + side + 16, side + 50, parts, "reliability diagram")


def loss_chart(
    losses: Sequence[tuple[str, float]], *, limit: float | None = None, title: str = "points lost"
) -> str:
    """Draw points lost, one row each, gains to the left; `limit` is the target."""
    width, scale_px = 460, 220
    low = min(0.0, *(value for _, value in losses))
    high = max(5.0, *(value for _, value in losses))
    height = 24 * len(losses) + 10
    zero = NAME_PX - scale_px * low / (high - low)

    def x(value: float) -> float:
        return zero + scale_px * value / (high - low)

    parts = [_line(zero, 2, zero, height - 4, "var(--faint)")]
    if limit is not None:
        parts.append(_line(x(limit), 2, x(limit), height - 4, GOOD, dash="4 3"))
    for row, (name, value) in enumerate(losses):
        y = 24 * row + 6
        over = value > (0 if limit is None else limit)
        parts.append(_text(NAME_PX - 12, y + 13, name, anchor="end", size=12))
        parts.append(
            f'<rect x="{min(zero, x(value)):.1f}" y="{y}" width="{abs(x(value) - zero):.1f}" height="16" '
            f'rx="3" fill="{BAD if over else SECOND}" fill-opacity="0.8"/>'
        )
        parts.append(_text(max(zero, x(value)) + 6, y + 13, f"{value:.1f}", size=12))
    return _svg(width, height, parts, title)


def _svg(width: float, height: float, parts: Sequence[str], title: str) -> str:
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" role="img" aria-label="{title}">'
        f"{''.join(parts)}</svg>"
    )


def _line(
    x1: float, y1: float, x2: float, y2: float, colour: str, *, width: float = 1, dash: str = ""
) -> str:
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
        f'stroke-width="{width}"{dashed}/>'
    )


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 13, extra: str = "") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="var(--text)" {extra}>'
        f"{escape(text)}</text>"
    )
