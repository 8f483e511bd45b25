"""What was measured, as a table in Markdown and a plot in SVG."""

import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path

from bench.receive import Series

_COLOURS = ("#1b6ca8", "#5aa9e6", "#8d99ae", "#c9ada7", "#9a8c98")


def machine() -> str:
    """This machine in a sentence."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    python, kernel = platform.python_version(), platform.release()
    return f"{cores} cores of {model}, {memory:.0f} GiB of memory, Linux {kernel}, Python {python}."


def table(title: str, series: Sequence[Series], reference: str) -> str:
    """One comparison: medians with minimum and maximum, and the median of the paired ratios to the reference."""
    base = next(one for one in series if one.name == reference)
    lines = [
        f"## {title}",
        "",
        f"| receiving side | instances/s | MB/s | ratio to {reference} | CPU s/GB | of receivers | peak MB | lost |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in series:
        lines.append(
            f"| {one.name} | {_spread(one.rates)} | {statistics.median(one.megabytes):.0f} "
            f"| {one.ratio_to(base):.2f} | {statistics.median(one.cpu_per_gb):.2f} "
            f"| {statistics.median(one.receiver_cpu_per_gb):.2f} | {one.peak_bytes / 1e6:.0f} | {one.lost} |"
        )
    return "\n".join([*lines, ""])


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.0f} ({min(values):.0f}-{max(values):.0f})"


def plot(results: Sequence[tuple[str, Sequence[Series]]], reference: str) -> str:
    """Bars of the ratios to the reference, one group a comparison, as SVG."""
    bar, gap, width = 18, 30, 900
    rows = sum(len(series) for _, series in results)
    height = rows * bar + len(results) * (gap + 20) + 40
    longest = max(one.ratio_to(_named(series, reference)) for _, series in results for one in series)
    scale = 480 / max(1.0, longest)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
        f'font-size="12"><rect width="{width}" height="{height}" fill="white"/>'
        f'<text x="10" y="20" font-size="14">Receiving rate as a ratio to {reference} (median of paired rounds)</text>'
    )
    parts = [head]
    y = 40
    for title, series in results:
        parts.append(f'<text x="10" y="{y + 14}" font-weight="bold">{title}</text>')
        y += 20
        base = _named(series, reference)
        for number, one in enumerate(series):
            ratio = one.ratio_to(base)
            parts.append(
                f'<text x="220" y="{y + 13}" text-anchor="end">{one.name}</text>'
                f'<rect x="230" y="{y + 2}" width="{ratio * scale:.1f}" height="{bar - 4}" '
                f'fill="{_COLOURS[number % len(_COLOURS)]}"/>'
                f'<text x="{236 + ratio * scale:.1f}" y="{y + 13}">{ratio:.2f}</text>'
            )
            y += bar
        y += gap
    return "".join([*parts, "</svg>\n"])


def _named(series: Sequence[Series], name: str) -> Series:
    return next(one for one in series if one.name == name)
