"""Plots in SVG: bars of ratios, and curves."""

import math
from collections.abc import Mapping, Sequence

_COLOURS = ("#1b6ca8", "#e07a2f", "#8d99ae", "#3a9d5d", "#9a4c95", "#b5a642")
_FONT = 'font-family="sans-serif" font-size="12"'

Points = Sequence[tuple[float, float]]


def bars(title: str, groups: Sequence[tuple[str, Mapping[str, float]]]) -> str:
    """One group of bars a comparison, on a logarithmic scale around 1.

    Args:
        title: above.
        groups: heading, and the value by name.
    """
    bar, gap, width, left, span = 18, 26, 940, 250, 560
    values = [value for _, named in groups for value in named.values() if value > 0]
    low, high = math.log(min([0.5, *values])), math.log(max([2.0, *values]))
    height = 50 + sum(20 + bar * len(named) + gap for _, named in groups)

    def x(value: float) -> float:
        return left + span * (math.log(value) - low) / (high - low)

    parts = [_head(width, height, title)]
    parts.append(f'<line x1="{x(1):.1f}" y1="34" x2="{x(1):.1f}" y2="{height - 10}" stroke="#999"/>')
    y = 40
    for heading, named in groups:
        parts.append(f'<text x="10" y="{y + 14}" font-weight="bold">{heading}</text>')
        y += 20
        for number, (name, value) in enumerate(named.items()):
            if value > 0:
                start, end = sorted((x(1), x(value)))
                parts.append(
                    f'<text x="{left - 10}" y="{y + 13}" text-anchor="end">{name}</text>'
                    f'<rect x="{start:.1f}" y="{y + 2}" width="{max(1.0, end - start):.1f}" height="{bar - 4}" '
                    f'fill="{_COLOURS[number % len(_COLOURS)]}"/>'
                    f'<text x="{x(1) + max(0.0, end - x(1)) + 6:.1f}" y="{y + 13}">{value:.2f}</text>'
                )
            y += bar
        y += gap
    return "".join([*parts, "</svg>\n"])


def curves(title: str, across: str, up: str, lines: Mapping[str, Points], *, logarithmic: bool = False) -> str:
    """Lines over one axis.

    Args:
        title: above.
        across: what the horizontal axis is.
        up: what the vertical one is.
        lines: points by name.
        logarithmic: both axes.
    """
    width, height, left, top, right, bottom = 760, 420, 80, 40, 190, 60
    xs = [point[0] for points in lines.values() for point in points]
    ys = [point[1] for points in lines.values() for point in points]
    scale = math.log10 if logarithmic else float
    low_x, high_x = scale(min(xs)), scale(max(xs))
    low_y, high_y = (scale(min(ys)) if logarithmic else 0.0), scale(max(ys))

    def at(point: tuple[float, float]) -> tuple[float, float]:
        x = left + (width - left - right) * (scale(point[0]) - low_x) / ((high_x - low_x) or 1.0)
        y = height - bottom - (height - top - bottom) * (scale(point[1]) - low_y) / ((high_y - low_y) or 1.0)
        return x, y

    parts = [_head(width, height, title)]
    parts.append(
        f'<path d="M{left} {top}V{height - bottom}H{width - right}" fill="none" stroke="#444"/>'
        f'<text x="{(left + width - right) / 2:.0f}" y="{height - 14}" text-anchor="middle">{across}</text>'
        f'<text transform="translate(16 {(top + height - bottom) / 2:.0f}) rotate(-90)" '
        f'text-anchor="middle">{up}</text>'
    )
    for value in sorted(set(xs)):
        parts.append(f'<text x="{at((value, max(ys)))[0]:.1f}" y="{height - 40}" text-anchor="middle">{value:g}</text>')
    for value in (min(ys), max(ys)):
        parts.append(f'<text x="{left - 6}" y="{at((max(xs), value))[1] + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    for number, (name, points) in enumerate(lines.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        places = [at(point) for point in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        parts.append(f'<text x="{width - right + 14}" y="{top + 16 * number + 12}" fill="{colour}">{name}</text>')
    return "".join([*parts, "</svg>\n"])


def _head(width: int, height: int, title: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" {_FONT}>'
        f'<rect width="{width}" height="{height}" fill="white"/><text x="10" y="22" font-size="14">{title}</text>'
    )
