"""Draws the study's curves as SVG, one panel for each target and precision: the effect of other thresholds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

Row = dict[str, Any]
COLUMNS, WIDTH, HEIGHT, LEFT, TOP, GAP = 4, 210, 150, 44, 64, 50
LARGEST = 64.0  # the last threshold
# Line styles differ as well as colours, for readers who cannot tell colours apart.
LINES = (
    ("alarms on correct checkpoints, 95 % bound", "#c0392b", "none"),
    ("caught: faults of 1 to 5 floors", "#9ecae1", "1 3"),
    ("caught: 5 to 20 floors", "#4292c6", "5 3"),
    ("caught: 20 floors or more", "#08306b", "none"),
)


def curves(results: Row) -> str:
    """Returns the whole picture."""
    rows = math.ceil(len(results["subjects"]) / COLUMNS)
    width, height = LEFT + COLUMNS * (WIDTH + GAP), TOP + rows * (HEIGHT + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">',
        "<title>False alarms and faults caught, by threshold</title>",
        f'<rect width="{width}" height="{height}" fill="white"/>',
        *_legend(results["threshold"]),
    ]
    for number, (name, subject) in enumerate(results["subjects"].items()):
        left = LEFT + number % COLUMNS * (WIDTH + GAP)
        top = TOP + number // COLUMNS * (HEIGHT + GAP)
        parts += [
            f'<g transform="translate({left} {top})">',
            *_panel(name, subject["curve"], results["threshold"]),
            "</g>",
        ]
    return "\n".join([*parts, "</svg>", ""])


def _legend(threshold: float) -> Iterator[str]:
    for number, (label, colour, dashes) in enumerate(LINES):
        left = LEFT + number * 255
        yield f'<path d="M{left} 16h26" stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}" fill="none"/>'
        yield f'<text x="{left + 32}" y="20">{label}</text>'
    yield f'<path d="M{LEFT} 36h26" stroke="#888" stroke-width="2"/>'
    yield f'<text x="{LEFT + 32}" y="40">the chosen threshold, {threshold:g}; across: threshold in floors; up: share</text>'


def _panel(name: str, curve: Sequence[Row], threshold: float) -> Iterator[str]:
    yield f'<text x="0" y="-6" font-weight="bold">{name}</text>'
    yield f'<path d="M0 0V{HEIGHT}H{WIDTH}" stroke="#444" fill="none"/>'
    for share in (0, 0.5, 1):
        yield f'<text x="-5" y="{_up(share) + 4:.1f}" text-anchor="end">{share:.0%}</text>'
    for number in (1, 2, 4, 8, 16, 32, 64):
        yield f'<text x="{_across(number):.1f}" y="{HEIGHT + 14}" text-anchor="middle">{number}</text>'
    yield f'<path d="M{_across(threshold):.1f} 0V{HEIGHT}" stroke="#888" stroke-width="2"/>'
    shares = [[point["false_alarm_bound"] for point in curve]]
    shares += [[point["caught_by_effect"][size] for point in curve] for size in range(len(LINES) - 1)]
    for (_, colour, dashes), line in zip(LINES, shares, strict=True):
        points = [
            f"{_across(point['threshold']):.1f},{_up(share):.1f}"
            for point, share in zip(curve, line, strict=True)
            if share is not None
        ]
        yield (
            f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="1.8" '
            f'stroke-dasharray="{dashes}"/>'
        )


def _across(threshold: float) -> float:
    return WIDTH * math.log(threshold) / math.log(LARGEST)


def _up(share: float) -> float:
    return HEIGHT * (1 - share)
